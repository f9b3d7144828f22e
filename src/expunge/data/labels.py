"""Labels as class numbers: accepted where the meaning is plain, and said; else refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from expunge.data.names import ClassNames
from expunge.data.plain import is_missing, plain_array
from expunge.data.rows import BadRowError
from expunge.errors import DataError

__all__ = ["ReadLabels", "label_of", "labels_of", "numbered"]

_WHOLE = re.compile(r"[+-]?\d+")
_NONE = "Multi-label and regression targets are not supported."


@final
@dataclass(frozen=True, slots=True)
class ReadLabels:
    """Class numbers (n,) int64, the names they stand for, and sentences on how they were read."""

    numbers: Tensor
    names: ClassNames | None = None
    notes: tuple[str, ...] = ()


def labels_of(
    raw: Any, ids: Sequence[str], argument: str, names: ClassNames | None = None
) -> ReadLabels:
    """Labels (n,) int64 from 0, for rows with these ids; raises DataError for anything else.

    One column, one-hot rows, whole numbers stored as fractions or as text, and names are read as
    what they plainly are, and the notes say so.
    """
    try:
        found = plain_array(raw, f"the labels of `{argument}`")
    except BadRowError as error:
        raise error.named(ids) from error
    if isinstance(found, Tensor):
        found = (found.float() if found.dtype is torch.bfloat16 else found).cpu().numpy()
    flat, notes = _one_a_row(found, argument)
    if len(flat) != len(ids):
        raise DataError(
            f"Expected as many labels as rows in `{argument}`, got {len(flat)} labels for "
            f"{len(ids)} rows."
        )
    if flat.dtype.kind == "b":
        raise DataError(
            f"Expected the labels of `{argument}` to be one integer a row, got truth values. Say "
            "which class is which: `.astype(int)` makes False class 0 and True class 1."
        )
    if flat.dtype.kind == "f":
        flat = _whole(flat, ids, argument)
        notes += (
            f"the labels of `{argument}` are fractions without a remainder, read as whole numbers",
        )
    return numbered(flat.tolist(), ids, argument, names, notes)


def numbered(
    values: Sequence[int | str],
    ids: Sequence[str],
    argument: str,
    names: ClassNames | None,
    notes: tuple[str, ...] = (),
) -> ReadLabels:
    """Class numbers of whole numbers, or of texts: those of `names`, or of their sorted texts."""
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) < len(values):
        place = next(
            n for n, v in enumerate(values) if isinstance(v, str) != isinstance(values[0], str)
        )
        raise DataError(
            f"Expected the labels of `{argument}` to be numbers or names, got both: "
            f"{values[0]!r} in row {ids[0]}, {values[place]!r} in row {ids[place]}."
        )
    if (
        texts
        and not (names and set(texts) <= set(names.names))
        and all(map(_WHOLE.fullmatch, texts))
    ):
        notes += (f"the labels of `{argument}` are numbers written as text, read as numbers",)
        values, texts = [int(text) for text in texts], []
    if texts:
        return _of_names(texts, ids, argument, names, notes)
    if values and names is not None and not names.given:
        raise DataError(
            f"Expected the labels of `{argument}` to be names like those of the training rows, got "
            f"the number {values[0]}. Give both as names, or both as numbers."
        )
    _refuse_outside([int(value) for value in values], ids, argument, names)
    return ReadLabels(torch.tensor(values, dtype=torch.int64), names, notes)


def label_of(raw: Any) -> tuple[int | str, str]:
    """The label of one item, and how it was read (empty: as it stands).

    Raises ValueError for what is no single label.
    """
    array = np.asarray(raw.detach().cpu().float() if _is_half(raw) else _detached(raw))
    if array.dtype.kind in "US" and array.size == 1:
        value = array.item()
        return (value.decode("utf-8") if isinstance(value, bytes) else value), ""
    if array.size > 1 and _is_one_hot(array.reshape(1, -1)):
        return int(
            array.reshape(-1).argmax()
        ), "one-hot rows, the place of the 1 is read as the class"
    if array.dtype.kind == "O" and array.size == 1 and is_missing(array.item()):
        raise ValueError(raw)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise ValueError(raw)
    number = array.item()
    if array.dtype.kind == "f":
        if not float(number).is_integer():
            raise ValueError(raw)
        return int(number), "fractions without a remainder, read as whole numbers"
    return int(number), ""


def _detached(raw: Any) -> Any:
    return raw.detach().cpu() if isinstance(raw, Tensor) else raw


def _is_half(raw: Any) -> bool:
    return isinstance(raw, Tensor) and raw.dtype is torch.bfloat16


def _one_a_row(
    found: np.ndarray[Any, Any], argument: str
) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    if found.ndim == 1:
        return found, ()
    if found.ndim == 2 and found.shape[1] == 1:
        return found[:, 0], (f"the labels of `{argument}` are one column, read as one label a row",)
    if found.ndim == 2 and len(found) and _is_one_hot(found):
        words = "one-hot rows, the place of the 1 is read as the class"
        return found.argmax(1), (f"the labels of `{argument}` are {words}",)
    raise DataError(
        f"Expected the labels of `{argument}` to be one integer a row, got shape {found.shape} and "
        f"dtype {found.dtype}. {_NONE} Probabilities: pass `.argmax(1)`."
    )


def _is_one_hot(found: np.ndarray[Any, Any]) -> bool:
    if found.dtype.kind not in "biuf" or found.shape[1] < 2:
        return False
    return bool(np.isin(found, (0, 1)).all() and (found.sum(1) == 1).all())


def _whole(flat: np.ndarray[Any, Any], ids: Sequence[str], argument: str) -> np.ndarray[Any, Any]:
    gaps = np.flatnonzero(~np.isfinite(flat))
    if len(gaps):
        raise DataError(
            f"Expected a label for every row of `{argument}`, got {flat[gaps[0]]} in row "
            f"{ids[gaps[0]]} ({len(gaps)} rows). Leave rows without a label out."
        )
    parts = np.flatnonzero(flat != np.floor(flat))
    if len(parts):
        raise DataError(
            f"Expected the labels of `{argument}` to be one integer a row, got {flat[parts[0]]} in "
            f"row {ids[parts[0]]}. {_NONE}"
        )
    if len(flat) and float(np.abs(flat).max()) >= 2**53:
        raise DataError(f"Expected class numbers in `{argument}`, got {float(flat.max()):g}.")
    return flat.astype(np.int64)


def _of_names(
    texts: Sequence[str],
    ids: Sequence[str],
    argument: str,
    names: ClassNames | None,
    notes: tuple[str, ...],
) -> ReadLabels:
    known = names or ClassNames(tuple(sorted(set(texts))))
    number = {name: n for n, name in enumerate(known.names)}
    stray = next((n for n, text in enumerate(texts) if text not in number), None)
    if stray is not None:
        where = "`classes` of the data" if known.given else "the names of the training rows"
        raise DataError(
            f"Expected the labels of `{argument}` among {where}, got {texts[stray]!r} in row "
            f"{ids[stray]}. There are {len(known.names)} of them: list every name, in the order of "
            "the model's outputs, as `classes` ([data] in a job)."
        )
    how = "as `classes` lists them" if known.given else "in sorted order"
    words = f"the labels of `{argument}` are names of {len(known.names)} classes, numbered {how}"
    return ReadLabels(torch.tensor([number[t] for t in texts]).long(), known, (*notes, words))


def _refuse_outside(
    values: Sequence[int], ids: Sequence[str], argument: str, names: ClassNames | None
) -> None:
    below = next((n for n, value in enumerate(values) if value < 0), None)
    if below is not None:
        raise DataError(
            f"Expected the labels of `{argument}` to be class numbers from 0, got {values[below]} "
            f"in row {ids[below]}. Number the classes 0..K-1; leave rows without a label out."
        )
    most = len(names.names) if names is not None else 2**63
    above = next((n for n, value in enumerate(values) if value >= most), None)
    if above is not None:
        limit = f"below the {len(names.names)} `classes`" if names else "that fit 64 bits"
        raise DataError(
            f"Expected class numbers {limit} in `{argument}`, got {values[above]} in row "
            f"{ids[above]}."
        )
