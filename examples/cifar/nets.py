"""Data sets and nets of the CIFAR examples; a job file names them as "nets:...".

`EXPUNGE_DATA` is the folder that holds `cifar10/`, `cifar100/` and `checkpoints/`.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from expunge.data import read_mosaics
from expunge.models import resnet20

MEAN = {"cifar10": (0.485, 0.456, 0.406), "cifar100": (0.5071, 0.4866, 0.4409)}
STD = {"cifar10": (0.229, 0.224, 0.225), "cifar100": (0.2673, 0.2564, 0.2762)}


def data_folder() -> Path:
    """The folder named by the environment variable EXPUNGE_DATA."""
    folder = os.environ.get("EXPUNGE_DATA")
    if not folder:
        raise SystemExit("Set EXPUNGE_DATA to the folder that holds cifar10/ and cifar100/.")
    return Path(folder)


def load(name: str, part: str) -> TensorDataset:
    """Normalised images (n, 3, 32, 32) and labels of `name` ("cifar10" or "cifar100")."""
    x, y = read_mosaics(data_folder() / name, part)
    return TensorDataset(normalise(torch.from_numpy(x), name), torch.from_numpy(y))


def normalise(images: Tensor, name: str) -> Tensor:
    """uint8 images (n, 32, 32, 3) to normalised floats (n, 3, 32, 32)."""
    mean = torch.tensor(MEAN[name]).view(3, 1, 1)
    std = torch.tensor(STD[name]).view(3, 1, 1)
    out = torch.empty(len(images), 3, 32, 32)
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096].permute(0, 3, 1, 2).float().div_(255)
        out[start : start + 4096] = (part - mean) / std
    return out


def cifar10_train() -> TensorDataset:
    """CIFAR-10, 50,000 training images."""
    return load("cifar10", "train")


def cifar10_test() -> TensorDataset:
    """CIFAR-10, 10,000 test images."""
    return load("cifar10", "test")


def cifar100_train() -> TensorDataset:
    """CIFAR-100, 50,000 training images, fine labels."""
    return load("cifar100", "train")


def cifar100_test() -> TensorDataset:
    """CIFAR-100, 10,000 test images, fine labels."""
    return load("cifar100", "test")


def cifar10_resnet20() -> nn.Module:
    """ResNet-20 for ten classes."""
    return resnet20(10)


def cifar100_resnet20() -> nn.Module:
    """ResNet-20 for a hundred classes."""
    return resnet20(100)
