"""View what people bring as `Rows`: one maker a kind of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from expunge.data.ids import checked_ids
from expunge.data.rows import Inputs, Rows
from expunge.errors import DataError

__all__ = ["_ID_KEYS", "as_rows"]


_LABEL_KEYS = ("labels", "label", "y", "target")


_ID_KEYS = ("id", "ids")


def _integer_labels(raw: Any, n: int, argument: str) -> Tensor:
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
        rest = {k: _tensor(v, argument) for k, v in item.items() if k != key and k not in _ID_KEYS}
        inputs = rest["x"] if set(rest) == {"x"} else rest
        return inputs, _whole_label(item[key], argument)
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return _tensor(item[0], argument), _whole_label(item[1], argument)
    raise DataError(
        f"Expected rows of `{argument}` to be (x, y) pairs or dicts, got {type(item).__name__}."
    )


def _from_arrays(x: Any, y: Any, ids: Sequence[Any] | None, argument: str) -> Rows:
    inputs = torch.as_tensor(x)
    labels = _integer_labels(y, len(inputs), argument)
    texts = checked_ids(ids, len(labels), argument)
    return Rows(labels, texts, torch.arange(len(labels)), lambda i: (inputs[i], labels[i]))


def _labels_of(data: Dataset[Any], n: int, argument: str) -> Tensor:
    for name in ("targets", "labels"):
        raw = getattr(data, name, None)
        if raw is not None and not callable(raw) and len(raw) == n:
            return _integer_labels(raw, n, argument)
    found = [_split_item(_read_item(data, i, argument), argument)[1] for i in range(n)]
    return _integer_labels(torch.tensor(found, dtype=torch.int64), n, argument)


def _read_item(data: Dataset[Any], position: int, argument: str) -> Any:
    try:
        return data[position]
    except Exception as error:
        raise DataError(
            f"Expected `{argument}` to give row {position}, but reading it raised "
            f"{type(error).__name__}: {error}. Fix the data set, or leave the row out."
        ) from error


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
            return Rows(data.labels, texts, data.index, data.read)
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
        own = next((data[k] for k in _ID_KEYS if k in data), None)
        return _from_arrays(data["x"], data["y"], ids if ids is not None else own, argument)
    if isinstance(data, TensorDataset):
        if len(data.tensors) != 2:
            raise DataError(
                f"Expected `{argument}` to hold two tensors (x, y), got {len(data.tensors)}."
            )
        return _from_arrays(*data.tensors, ids, argument)
    if isinstance(data, Subset):
        positions = torch.as_tensor(list(data.indices), dtype=torch.int64)
        chosen = as_rows(data.dataset, argument=argument).select(positions)
        if ids is None and len(set(chosen.ids)) != len(chosen):
            checked_ids(chosen.ids, len(chosen), argument)
        return as_rows(chosen, ids=ids, argument=argument)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return _from_arrays(data[0], data[1], ids, argument)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(
            f"Expected `{argument}` to be a Dataset, a pair of arrays or a mapping with x and y, "
            f"got {type(data).__name__}."
        )
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
    return Rows(labels, texts, torch.arange(n), read)


def _first(inputs: Inputs, n: int) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs[:n]
    return {name: value[:n] for name, value in inputs.items()}
