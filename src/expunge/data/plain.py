"""Plain tensors and arrays out of what people hold: lists, NumPy, data frames, Arrow.

Nothing of these libraries is imported: what has `to_numpy` or `to_pandas` is asked for it. Whatever
cannot be read as numbers or texts is a DataError that names the row, where one row is to blame.
"""

from __future__ import annotations

import numbers
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from expunge.data.rows import BadRowError
from expunge.errors import DataError

__all__ = ["is_missing", "numbers_of", "plain_array", "tensor_of"]

_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}


def tensor_of(raw: Any, what: str) -> Tensor:
    """The numbers in `raw` as a dense tensor, in the type they have; raises DataError for others.

    Unsigned integers above 8 bits become signed ones. `what` names the values in messages.
    """
    found = plain_array(raw, what)
    if isinstance(found, Tensor):
        return found
    if found.dtype.kind == "U":
        raise DataError(
            f"Expected {what} to be numbers, got texts such as {str(found.flat[0])!r}. Convert "
            "them as for the training of the model (tokens, categories)."
        )
    return numbers_of(found)


def numbers_of(array: np.ndarray[Any, Any]) -> Tensor:
    """An array of numbers as a tensor on the same memory, where its layout allows."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(step < 0 for step in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(array)


def plain_array(raw: Any, what: str) -> Tensor | np.ndarray[Any, Any]:
    """A dense tensor, or an array of kind b, i, u, f (numbers) or U (texts)."""
    if isinstance(raw, Tensor):
        return _dense(raw, what)
    if raw is None:
        raise DataError(f"Expected {what} to be an array, got None.")
    if isinstance(raw, Dataset):
        raise DataError(
            f"Expected {what} to be an array, got the data set {type(raw).__name__}. Pass the data "
            "set itself, not a pair; rows never trained on go under `holdout`."
        )
    if hasattr(raw, "toarray"):
        raise DataError(f"Expected {what} to be dense, got a sparse array. Pass its `.toarray()`.")
    if isinstance(raw, np.ma.MaskedArray) and bool(np.ma.getmaskarray(raw).any()):
        raise BadRowError(int(np.ma.getmaskarray(raw).nonzero()[0][0]), _missing(what))
    if isinstance(raw, (list, tuple)):
        return _of_list(raw, what)
    array = _asked(raw, what)
    if array.dtype.kind == "O":
        return _of_objects(array, what)
    return _of_kind(array, what)


def is_missing(value: Any) -> bool:
    """Whether this stands for a missing value: None, NaN, pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType", "NullScalar"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _missing(what: str) -> Any:
    return lambda row: (
        f"Expected {what} without gaps, got a missing value in row {row}. Fill it in, or leave the "
        "row out."
    )


def _dense(raw: Tensor, what: str) -> Tensor:
    cures = {
        "sparse": (raw.layout is not torch.strided, "Pass its `.to_dense()`."),
        "quantised": (raw.is_quantized, "Pass its `.dequantize()`."),
        "complex": (raw.is_complex(), "Pass its parts as real numbers (`torch.view_as_real`)."),
        "without data (meta)": (raw.is_meta, "Load its data first."),
    }
    for word, (holds, cure) in cures.items():
        if holds:
            raise DataError(f"Expected {what} to be plain numbers, got a tensor {word}. {cure}")
    if raw.dtype is torch.uint64:
        return numbers_of(_of_kind(raw.cpu().numpy(), what))
    return raw.detach().to(_WIDER.get(raw.dtype, raw.dtype))


def _asked(raw: Any, what: str) -> np.ndarray[Any, Any]:
    """The array that `raw` gives when asked, by the first way that works."""
    ways: list[Any] = [lambda: np.asarray(raw)]
    if hasattr(raw, "to_pandas"):
        ways.insert(0, lambda: raw.to_pandas().to_numpy())
    if hasattr(raw, "to_numpy"):
        ways = [raw.to_numpy, lambda: raw.to_numpy(zero_copy_only=False), *ways]
    errors = []
    for way in ways:
        try:
            found = way()
            if isinstance(found, np.ndarray):
                return np.asarray(found)
        except Exception as error:  # noqa: BLE001 - whatever a foreign library raises
            errors.append(f"{type(error).__name__}: {error}")
    raise DataError(
        f"Expected {what} to be an array, a tensor or a data frame, got {type(raw).__name__}"
        + (f" ({errors[-1]})" if errors else "")
        + ". Convert it to a NumPy array."
    )


def _of_list(raw: Sequence[Any], what: str) -> Tensor | np.ndarray[Any, Any]:
    """Entries of one shape put together; Python's own numbers are of torch's default type."""
    if any(isinstance(entry, Tensor) for entry in raw):
        entries = [tensor_of(entry, what) for entry in raw]
        _refuse_ragged([tuple(entry.shape) for entry in entries], what)
        return torch.stack(entries)
    if any(isinstance(entry, Dataset) for entry in raw):
        raise DataError(f"Expected {what} to be arrays, got a list of data sets. Pass one alone.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = np.asarray(raw)
    except Exception as error:
        _refuse_ragged([_shape(entry) for entry in raw], what)
        raise DataError(
            f"Expected {what} to be an array of numbers, but making one of the list raised "
            f"{type(error).__name__}: {error}. Convert it to a NumPy array."
        ) from error
    if array.dtype.kind == "O" or (array.dtype.kind in "US" and not _all_texts(raw)):
        array = np.empty(len(raw), dtype=object)
        array[:] = list(raw)
        return _of_objects(array, what)
    found = _of_kind(array, what)
    own = found.dtype == np.float64 and not any(hasattr(entry, "dtype") for entry in raw)
    return found.astype(np.float32) if own else found


def _all_texts(raw: Any) -> bool:
    if isinstance(raw, (list, tuple)):
        return all(_all_texts(entry) for entry in raw)
    kind = getattr(getattr(raw, "dtype", None), "kind", None)
    return isinstance(raw, (str, bytes)) or kind in ("U", "S")


def _shape(entry: Any) -> tuple[int, ...]:
    try:
        return tuple(np.shape(entry))
    except Exception:  # noqa: BLE001 - ragged in itself
        return (-1,)


def _refuse_ragged(shapes: Sequence[tuple[int, ...]], what: str) -> None:
    if len(set(shapes)) < 2:
        return
    usual = Counter(shapes).most_common(1)[0][0]
    place = next(n for n, shape in enumerate(shapes) if shape != usual)
    raise BadRowError(
        place,
        lambda row: (
            f"Expected {what} to have one shape, got {shapes[place]} in row {row} where others "
            f"have {usual}. Resize, pad or crop it, or leave the row out."
        ),
    )


def _of_objects(array: np.ndarray[Any, Any], what: str) -> Tensor | np.ndarray[Any, Any]:
    """An array of Python objects: numbers, texts, or arrays of one shape."""
    flat = list(array.reshape(-1))
    width = len(flat) // len(array) if array.ndim and len(array) else 1
    for n, value in enumerate(flat):
        if is_missing(value):
            raise BadRowError(n // width, _missing(what))
    if not flat:
        return np.zeros(array.shape, dtype=np.int64)
    if all(isinstance(value, (str, bytes)) for value in flat):
        return _of_kind(np.array([_text(value, what) for value in flat]).reshape(array.shape), what)
    if all(isinstance(value, (numbers.Real, np.generic)) for value in flat):
        try:
            made = np.array([v.item() if isinstance(v, np.generic) else v for v in flat])
            made = made.astype(np.float64) if made.dtype.kind == "O" else made
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"Expected {what} to be numbers, got some that are none ({error})."
            ) from error
        return _of_kind(made.reshape(array.shape), what)
    if array.ndim == 1 and all(isinstance(v, (np.ndarray, Tensor, list, tuple)) for v in flat):
        parts = [tensor_of(value, what) for value in flat]
        _refuse_ragged([tuple(part.shape) for part in parts], what)
        return torch.stack(parts)
    kinds = sorted({type(value).__name__ for value in flat})
    raise DataError(
        f"Expected {what} to be numbers, got objects of type {', '.join(kinds[:4])}. Convert them "
        "to numbers of one type."
    )


def _text(value: Any, what: str) -> str:
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(
            f"Expected {what} as text, got the bytes {value!r}, which are no UTF-8."
        ) from error


def _of_kind(array: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """An array of numbers in a type that torch computes with, or of texts."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "ib" or (kind == "f" and size <= 8) or (kind == "u" and size == 1):
        return array
    if kind == "f":
        return array.astype(np.float64)
    if kind == "u":
        if size == 8 and array.size and int(array.max()) >= 2**63:
            raise DataError(f"Expected {what} below 2**63, got {int(array.max())}.")
        return array.astype(np.int32 if size == 2 else np.int64)
    if kind in "UST":
        texts = [_text(value, what) for value in array.reshape(-1).tolist()]
        return np.array(texts, dtype=str).reshape(array.shape)
    if kind == "O":
        raise DataError(f"Expected {what} to be plain numbers. Convert them to one type.")
    raise DataError(
        f"Expected {what} to be numbers, got dtype {array.dtype}. Convert dates, complex numbers "
        "and records to numbers as for the training of the model."
    )
