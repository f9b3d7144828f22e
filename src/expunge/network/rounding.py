"""When two answers are the same but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["apart"]

_ROUNDING = 1e-4
"""Share of the largest value by which equal mathematics may differ. Other kernels run for other
batch sizes: trained nets were seen to differ by 4e-7 in float32. A deep net may amplify rounding a
millionfold, so what differs by more is looked at again in float64 where it matters (`steady`)."""

_COARSE = 1e-2
"""The same where an accelerator may multiply float32 in TF32, which keeps ten binary digits."""


def apart(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape differ by more than rounding in the dtype of the first."""
    finite = a[torch.isfinite(a)].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    same = (a == b) | (a.isnan() & b.isnan())  # −∞ − −∞ is no number
    return not bool((same | ((a - b).abs() <= _share(a) * largest)).all())


def _share(values: Tensor) -> float:
    least = _COARSE if values.device.type != "cpu" and values.dtype != torch.float64 else _ROUNDING
    return max(least, 16 * torch.finfo(values.dtype).eps)
