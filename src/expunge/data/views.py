"""View what people bring as `Rows`: one maker a kind of data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
)

from expunge.data.arrays import from_arrays
from expunge.data.datasets import from_dataset
from expunge.data.ids import ID_KEYS, checked_ids
from expunge.data.rows import Rows
from expunge.errors import DataError

__all__ = ["as_rows"]


def as_rows(data: Any, *, ids: Sequence[Any] | None = None, argument: str = "train") -> Rows:
    """View `data` as `Rows`.

    Accepts `Rows`, a map-style Dataset, a pair `(x, y)` of arrays with n rows each, or a mapping
    with `x`, `y` and optional `id`. Raises DataError for loaders, streams and bad labels, and
    TaskError for missing or duplicate ids. Reading a Dataset without `targets` or `labels` reads
    every row once.
    """
    if isinstance(data, Rows):
        if ids is not None:
            texts = checked_ids(ids, len(data), argument)
            return dataclasses.replace(data, ids=texts, given_ids=True)
        return data
    if isinstance(data, DataLoader):
        raise DataError(
            f"Expected `{argument}` to be a Dataset or arrays, got a DataLoader. Pass its "
            "`.dataset`: Expunge owns batching and order, so that a seed means something."
        )
    if isinstance(data, IterableDataset):
        raise DataError(
            f"Expected `{argument}` to be a map-style Dataset, got an IterableDataset. "
            "Expunge needs to find records by id: wrap it in a Dataset with `__getitem__`."
        )
    if isinstance(data, Mapping):
        missing = [k for k in ("x", "y") if k not in data]
        if missing:
            raise DataError(
                f"Expected `{argument}` to hold the arrays x and y, got {sorted(data)}."
            )
        own = next((data[k] for k in ID_KEYS if k in data), None)
        return from_arrays(data["x"], data["y"], ids if ids is not None else own, argument)
    if isinstance(data, TensorDataset):
        if len(data.tensors) != 2:
            raise DataError(
                f"Expected `{argument}` to hold two tensors (x, y), got {len(data.tensors)}."
            )
        return from_arrays(*data.tensors, ids, argument)
    if isinstance(data, Subset):
        positions = torch.as_tensor(list(data.indices), dtype=torch.int64)
        chosen = as_rows(data.dataset, argument=argument).select(positions)
        if ids is None and len(set(chosen.ids)) != len(chosen):
            checked_ids(chosen.ids, len(chosen), argument)
        return as_rows(chosen, ids=ids, argument=argument)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return from_arrays(data[0], data[1], ids, argument)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(
            f"Expected `{argument}` to be a Dataset, a pair of arrays or a mapping with x and y, "
            f"got {type(data).__name__}."
        )
    return from_dataset(data, ids, argument)
