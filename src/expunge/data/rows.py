"""Labelled rows with ids: the one view of data that the doors, methods and audits share.

`as_rows` accepts a map-style Dataset of `(x, y)` or dict items, a pair of arrays, or a mapping
with `x`, `y` and optional `id` (as `np.load` gives). Nothing is copied until it is read.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
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

from expunge.errors import DataError, TaskError

__all__ = [
    "Inputs",
    "Rows",
    "as_rows",
    "content_digests",
    "has_ids",
    "id_texts",
    "read_npz",
    "refuse_single",
]

Inputs = Tensor | dict[str, Tensor]
"""A batch of model inputs: one tensor, or named tensors handed over as keyword arguments."""

_LABEL_KEYS = ("labels", "label", "y", "target")
_ID_KEYS = ("id", "ids")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Rows(Dataset[tuple[Any, int]]):
    """Rows of a data set: inputs on demand, labels (n,) int64 and unique ids at hand.

    Also a map-style Dataset of `(x, y)`, so that a user's training function can read it.
    """

    labels: Tensor
    ids: tuple[str, ...]
    index: Tensor
    read: Callable[[Tensor], tuple[Inputs, Tensor]]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        if not 0 <= position < len(self):
            raise IndexError(position)
        inputs, labels = self.batch(torch.tensor([position]))
        if isinstance(inputs, Tensor):
            return inputs[0], int(labels[0])
        return {name: value[0] for name, value in inputs.items()}, int(labels[0])

    def batch(self, positions: Tensor) -> tuple[Inputs, Tensor]:
        """Read the rows at `positions` (k,); raises DataError if the labels changed since."""
        inputs, labels = self.read(self.index[positions])
        known = self.labels[positions]
        if not torch.equal(labels, known):
            raise DataError(
                "Expected the data set to give the same label each time, got another label for "
                f"row {self.ids[int(positions[(labels != known).nonzero()[0, 0]])]!r}. "
                "Use a data set without random labels."
            )
        return inputs, labels

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield batches of at most `size` rows, in `order` (all rows as stored by default)."""
        positions = torch.arange(len(self)) if order is None else order
        for part in positions.split(size):
            yield self.batch(part)

    def select(self, positions: Tensor) -> Rows:
        """The rows at `positions`, as a view."""
        chosen = positions.tolist()
        return Rows(
            self.labels[positions],
            tuple(self.ids[i] for i in chosen),
            self.index[positions],
            self.read,
        )


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


def _checked_ids(ids: Sequence[Any] | None, n: int, argument: str) -> tuple[str, ...]:
    if ids is None:
        return tuple(str(i) for i in range(n))
    refuse_single(ids, "ids")
    texts = id_texts(ids, argument)
    if len(texts) != n:
        raise TaskError(
            f"Expected one id a row in `{argument}`, got {len(texts)} ids for {n} rows."
        )
    if len(set(texts)) != n:
        seen: set[str] = set()
        double = next(t for t in texts if t in seen or seen.add(t))  # type: ignore[func-returns-value]
        raise TaskError(
            f"Expected unique ids in `{argument}`, got duplicate id {double!r}. "
            "Give each record one id of its own."
        )
    return texts


def refuse_single(values: Any, argument: str) -> None:
    """Raise TaskError for one text or one number where several entries are expected."""
    single = isinstance(values, (str, bytes)) or getattr(values, "ndim", 1) == 0
    try:
        iter(values)
    except TypeError:
        single = True
    if single:
        raise TaskError(
            f"Expected `{argument}` to be a list or set of entries, got {values!r}. Put a single "
            "one in a list."
        )


def id_texts(ids: Iterable[Any], argument: str) -> tuple[str, ...]:
    """Ids as text, one way for those of the data and those asked for; arrays entry by entry."""
    return tuple(_id_text(i, argument) for i in ids)


def _id_text(value: Any, argument: str) -> str:
    """The id as text; byte strings (numpy's dtype S) are read as UTF-8."""
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim:
            raise TaskError(
                f"Expected one id an entry in `{argument}`, got shape {tuple(value.shape)}. "
                "Flatten the array of ids."
            )
        value = value.item()
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"Expected the ids of `{argument}` as text, got the bytes {value!r}, which are no "
            "UTF-8. Store them as strings."
        ) from error


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
    texts = _checked_ids(ids, len(labels), argument)
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
            texts = _checked_ids(ids, len(data), argument)
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
            _checked_ids(chosen.ids, len(chosen), argument)
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

    texts = _checked_ids(ids, n, argument)
    return Rows(labels, texts, torch.arange(n), read)


def _first(inputs: Inputs, n: int) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs[:n]
    return {name: value[:n] for name, value in inputs.items()}


def read_npz(path: Path | str) -> dict[str, Any]:
    """Read x, y and optional id from an npz file; object arrays (pickles) are refused."""
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"Expected a file at {path}, found none. Check the path.") from error
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"Expected {path.name} to be an npz file of plain arrays, but reading it raised "
            f"{type(error).__name__}: {error}. Object arrays are pickles and are refused; save "
            "ids as strings and images as numbers."
        ) from error


def has_ids(path: Path) -> bool:
    """Whether an npz file holds ids of its own."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return not set(_ID_KEYS).isdisjoint(archive.files)


def _row_bytes(value: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of each row (n, bytes); also for dtypes that numpy does not know."""
    flat = value.detach().cpu().contiguous().reshape(len(value), value.shape[1:].numel())
    return flat.view(torch.uint8).numpy()


def content_digests(rows: Rows, *, batch_size: int = 512) -> list[bytes]:
    """BLAKE2b digest of the content of each row (inputs, not the label), in order."""
    digests: list[bytes] = []
    for inputs, labels in rows.batches(batch_size):
        parts = {"": inputs} if isinstance(inputs, Tensor) else inputs
        arrays = [
            (name, value.dtype, value.shape[1:], _row_bytes(value))
            for name, value in sorted(parts.items())
        ]
        for i in range(len(labels)):
            total = hashlib.blake2b(digest_size=16)
            for name, dtype, shape, content in arrays:
                total.update(f"{name}{dtype}{tuple(shape)}".encode())
                total.update(content[i].tobytes())
            digests.append(total.digest())
    return digests
