"""Map-style datasets of (x, y) pairs or dicts as `Rows`, read on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    Dataset,
    default_collate,
)

from expunge.data.arrays import integer_labels
from expunge.data.ids import ID_KEYS, checked_ids
from expunge.data.rows import Inputs, Rows
from expunge.errors import DataError

__all__ = ["from_dataset"]


_LABEL_KEYS = ("labels", "label", "y", "target")


def _whole_label(label: Any, argument: str) -> int:
    array = label.cpu().numpy() if isinstance(label, Tensor) else np.asarray(label)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"Expected one whole number as label a row in `{argument}`, got {label!r}. Multi-label "
            "and regression targets are not supported."
        )
    return int(array.item())


def _tensor(value: Any, argument: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Expected the inputs of `{argument}` to be tensors or arrays of numbers, got "
            f"{type(value).__name__} ({error}). Convert images and texts in the data set."
        ) from error


def _split_item(item: Any, argument: str) -> tuple[Any, int]:
    if isinstance(item, Mapping):
        key = next((k for k in _LABEL_KEYS if k in item), None)
        if key is None:
            raise DataError(
                f"Expected dict rows of `{argument}` to hold a label under one of "
                f"{', '.join(_LABEL_KEYS)}, got keys {sorted(item)}."
            )
        rest = {k: _tensor(v, argument) for k, v in item.items() if k != key and k not in ID_KEYS}
        inputs = rest["x"] if set(rest) == {"x"} else rest
        return inputs, _whole_label(item[key], argument)
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return _tensor(item[0], argument), _whole_label(item[1], argument)
    raise DataError(
        f"Expected rows of `{argument}` to be (x, y) pairs or dicts, got {type(item).__name__}."
    )


def _labels_of(data: Dataset[Any], n: int, argument: str) -> Tensor:
    for name in ("targets", "labels"):
        raw = getattr(data, name, None)
        if raw is not None and not callable(raw) and len(raw) == n:
            return integer_labels(raw, n, argument)
    found = [_split_item(_read_item(data, i, argument), argument)[1] for i in range(n)]
    return integer_labels(torch.tensor(found, dtype=torch.int64), n, argument)


def _read_item(data: Dataset[Any], position: int, argument: str) -> Any:
    try:
        return data[position]
    except Exception as error:
        raise DataError(
            f"Expected `{argument}` to give row {position}, but reading it raised "
            f"{type(error).__name__}: {error}. Fix the data set, or leave the row out."
        ) from error


def from_dataset(data: Any, ids: Sequence[Any] | None, argument: str) -> Rows:
    """View a map-style dataset; labels are taken from `targets` or `labels`, else read once."""
    n = len(data)
    labels = _labels_of(data, n, argument)

    def read(index: Tensor) -> tuple[Inputs, Tensor]:
        # the first row tells the shape of none
        wanted = index.tolist() or [0]
        items = [_split_item(_read_item(data, i, argument), argument) for i in wanted]
        try:
            inputs = default_collate([item[0] for item in items])
        except Exception as error:
            raise DataError(
                f"Expected the rows of `{argument}` to have one shape, but stacking them raised "
                f"{type(error).__name__}: {error}. Resize or pad them in the data set."
            ) from error
        found = torch.tensor([item[1] for item in items], dtype=torch.int64)
        return _first(inputs, len(index)), found[: len(index)]

    texts = checked_ids(ids, n, argument)
    return Rows(labels, texts, torch.arange(n), read, ids is not None)


def _first(inputs: Inputs, n: int) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs[:n]
    return {name: value[:n] for name, value in inputs.items()}
