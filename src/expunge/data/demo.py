"""The embedded demo data: scikit-learn's handwritten digits, 1,797 images of 8×8 pixels.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository 1998 (CC BY 4.0), as shipped with scikit-learn: no download.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset

__all__ = ["digits"]


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training rows (1,198) and holdout rows (599): images (n, 1, 8, 8) in [−1, 1] and labels."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 8.0 - 1.0
    labels: Tensor = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, holdout = order[: 2 * len(order) // 3], order[2 * len(order) // 3 :]
    return (
        TensorDataset(images[train], labels[train]),
        TensorDataset(images[holdout], labels[holdout]),
    )
