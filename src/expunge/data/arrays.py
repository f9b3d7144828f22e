"""Arrays as `Rows`: a pair (x, y), a mapping with x, y and optional ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.data.ids import checked_ids
from expunge.data.rows import Rows
from expunge.errors import DataError

__all__ = ["from_arrays", "integer_labels"]


def integer_labels(raw: Any, n: int, argument: str) -> Tensor:
    """Labels (n,) int64 from 0; raises DataError for anything else."""
    labels = torch.as_tensor(np.asarray(raw) if not isinstance(raw, Tensor) else raw)
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(
            f"Expected the labels of `{argument}` to be one integer a row, got shape "
            f"{tuple(labels.shape)} and dtype {labels.dtype}. Multi-label and regression targets "
            "are not supported."
        )
    if len(labels) != n:
        raise DataError(
            f"Expected as many labels as rows in `{argument}`, got {len(labels)} labels for {n} "
            "rows."
        )
    if n and int(labels.min()) < 0:
        raise DataError(
            f"Expected the labels of `{argument}` to be class numbers from 0, got "
            f"{int(labels.min())}. Number the classes 0..K-1."
        )
    return labels.to(torch.int64).cpu()


def from_arrays(x: Any, y: Any, ids: Sequence[Any] | None, argument: str) -> Rows:
    """View arrays of n inputs and n labels."""
    inputs = torch.as_tensor(x)
    labels = integer_labels(y, len(inputs), argument)
    texts = checked_ids(ids, len(labels), argument)
    given = ids is not None
    return Rows(labels, texts, torch.arange(len(labels)), lambda i: (inputs[i], labels[i]), given)
