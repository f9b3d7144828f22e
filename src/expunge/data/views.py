"""View what people bring as `Rows`: one maker a kind of data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from expunge.data.arrays import from_arrays
from expunge.data.datasets import from_dataset
from expunge.data.ids import ID_KEYS, checked_ids
from expunge.data.items import LABEL_KEYS, Fields
from expunge.data.names import named_classes
from expunge.data.plain import tensor_of
from expunge.data.rows import Rows
from expunge.errors import DataError

__all__ = ["as_rows"]


def as_rows(
    data: Any,
    *,
    ids: Sequence[Any] | None = None,
    argument: str = "train",
    fields: Fields | None = None,
) -> Rows:
    """View `data` as `Rows`.

    Accepts `Rows`, a map-style Dataset, a pair `(x, y)` of arrays with n rows each, or a mapping
    with `x`, `y` and optional `id`; `x` may be a mapping of arrays. `fields` names what is called
    otherwise. Data are what the data set gives: only torch's own TensorDataset and Subset are read
    past, never a subclass. Raises DataError for loaders, streams and bad labels, and TaskError for
    missing or duplicate ids.
    """
    asked = fields or Fields()
    names = named_classes(asked.classes)
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
        x, y = _columns(data, asked, argument)
        own = next((data[k] for k in ID_KEYS if k in data), None)
        return from_arrays(x, y, ids if ids is not None else own, argument, names)
    if type(data) is TensorDataset and asked.input is None and asked.label is None:
        if len(data.tensors) == 2:
            return from_arrays(*data.tensors, ids, argument, names)
        if len(data.tensors) < 2:
            raise DataError(
                f"Expected `{argument}` to hold two tensors (x, y), got {len(data.tensors)}."
            )
    if type(data) is Subset:
        return _of_subset(data, ids, argument, asked)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        if any(isinstance(part, (Dataset, DataLoader)) for part in data):
            raise DataError(
                f"Expected `{argument}` to be one data set or a pair of arrays (x, y), got a pair "
                "of data sets. Pass the training set alone; rows never trained on go under "
                "`holdout`."
            )
        return from_arrays(data[0], data[1], ids, argument, names)
    _refuse_frames(data, argument)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(
            f"Expected `{argument}` to be a Dataset, a pair of arrays or a mapping with x and y, "
            f"got {type(data).__name__}."
        )
    return from_dataset(data, ids, argument, asked)


def _columns(data: Mapping[Any, Any], fields: Fields, argument: str) -> tuple[Any, Any]:
    """The inputs and labels of a mapping of arrays."""
    x = "x" if fields.input is None else fields.input
    y = "y" if fields.label is None else fields.label
    if x not in data or y not in data:
        near = [k for k in LABEL_KEYS if k in data and k != "y"]
        hint = f" Name them: `Fields(input=..., label={near[0]!r})`." if near else ""
        raise DataError(
            f"Expected `{argument}` to hold the arrays {x} and {y}, got "
            f"{sorted(map(str, data))}.{hint or ' Name them under [data] in a job.'}"
        )
    return data[x], data[y]


def _refuse_frames(data: Any, argument: str) -> None:
    if hasattr(data, "to_numpy") or hasattr(data, "to_pandas"):
        raise DataError(
            f"Expected `{argument}` to be a pair (x, y) or a data set, got {type(data).__name__}. "
            "Pass its columns: (frame[names_of_inputs], frame[name_of_label])."
        )


def _of_subset(data: Any, ids: Sequence[Any] | None, argument: str, fields: Fields) -> Rows:
    """The rows of a Subset, by default with the positions in its base as ids."""
    base, places = data, None
    while type(base) is Subset:
        own = _places(base, argument)
        places = own if places is None else [own[place] for place in places]
        base = base.dataset
    assert places is not None
    fast = isinstance(base, (Rows, Mapping)) or (
        type(base) is TensorDataset and len(base.tensors) == 2
    )
    if fast or isinstance(base, (tuple, list)):
        chosen = as_rows(base, argument=argument, fields=fields).select(torch.tensor(places).long())
        if ids is None and len(set(chosen.ids)) != len(chosen):
            checked_ids(chosen.ids, len(chosen), argument)
        return as_rows(chosen, ids=ids, argument=argument)
    if isinstance(base, (IterableDataset, DataLoader)):
        return as_rows(base, argument=argument)
    return from_dataset(base, ids, argument, fields, places)


def _places(data: Any, argument: str) -> list[int]:
    """The positions that a Subset takes, from 0; raises DataError where it cannot take them."""
    found = tensor_of(data.indices, f"the indices of the Subset `{argument}`")
    if found.dtype is torch.bool:
        raise DataError(
            f"Expected `{argument}` to be a Subset by positions, got a mask of truth values: a "
            "Subset reads them as the positions 0 and 1. Use `mask.nonzero()[0].tolist()`."
        )
    if found.ndim != 1 or found.is_floating_point():
        if found.numel() == 0:
            return []
        raise DataError(
            f"Expected `{argument}` to be a Subset by whole numbers, got indices of shape "
            f"{tuple(found.shape)} and type {found.dtype}."
        )
    n = len(data.dataset)
    outside = [i for i in found.tolist() if not -n <= i < n]
    if outside:
        raise DataError(
            f"Expected `{argument}` to be a Subset of positions below {n}, got {outside[0]}."
        )
    return [i % n for i in found.tolist()]
