"""What the benchmarks share: real data and models, and tables on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import expunge
from expunge.data import read_idx

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "artifacts"
sys.path.insert(0, str(ROOT / "examples" / "cifar"))


def data_folder() -> Path | None:
    """The folder with the real data sets, where EXPUNGE_DATA names one."""
    named = os.environ.get("EXPUNGE_DATA")
    return Path(named) if named else None


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a markdown table."""
    widths = [max(len(r[i]) for r in (heading, *rows)) for i in range(len(heading))]
    for row in (heading, ["-" * w for w in widths], *rows):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |")
    print(flush=True)


def fashion_mnist(folder: Path) -> tuple[TensorDataset, TensorDataset]:
    """Fashion-MNIST, 60,000 and 10,000 images (n, 784), scaled to mean 0 and deviation 1."""
    parts = []
    for name in ("train", "t10k"):
        x = torch.from_numpy(
            read_idx(folder / "fashion_mnist" / f"{name}-images-idx3-ubyte.gz").copy()
        )
        y = torch.from_numpy(
            read_idx(folder / "fashion_mnist" / f"{name}-labels-idx1-ubyte.gz").copy()
        )
        parts.append(TensorDataset((x.flatten(1).float() / 255 - 0.2860) / 0.3530, y.long()))
    return parts[0], parts[1]


def public_resnet20(folder: Path) -> nn.Module:
    """The public CIFAR-10 ResNet-20 checkpoint."""
    from expunge.models import resnet20

    model = resnet20(10)
    model.load_state_dict(load_file(folder / "checkpoints" / "cifar10_resnet20.safetensors"))
    return model.eval()


def own_cifar100_resnet20() -> nn.Module | None:
    """The CIFAR-100 ResNet-20 of the examples, where it has been trained."""
    from expunge.models import resnet20

    path = CACHE / "cifar100_resnet20.safetensors"
    if not path.exists():
        return None
    model = resnet20(100)
    model.load_state_dict(load_file(path))
    return model.eval()


def train(training: expunge.Training, data: TensorDataset, seed: int) -> nn.Module:
    """Train one model from scratch under a seed, leaving the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return training.fit(
            training.factory(),
            data,
            generator=torch.Generator().manual_seed(seed),
            device=torch.device("cpu"),
        )


def class_methods() -> list[tuple[str, expunge.Method]]:
    """The class methods with their defaults, and the variants worth a row of their own."""
    return [
        ("mask-class", expunge.MaskClass()),
        ("naive-prototype-surgery", expunge.NaivePrototypeSurgery()),
        ("prototype-surgery", expunge.PrototypeSurgery()),
        ("prototype-surgery, anchor retain", expunge.PrototypeSurgery(anchor="retain")),
        ("prototype-surgery, labels ridge-head", expunge.PrototypeSurgery(labels="ridge-head")),
        ("prototype-surgery, labels paper", expunge.PrototypeSurgery(labels="paper")),
        ("least-squares-removal", expunge.LeastSquaresRemoval()),
        ("mu-mis", expunge.MuMis()),
    ]
