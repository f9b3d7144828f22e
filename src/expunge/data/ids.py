"""Ids of records as text: one way for those of the data and those asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from expunge.errors import TaskError

__all__ = ["ID_KEYS", "checked_ids", "id_texts", "refuse_single"]

ID_KEYS = ("id", "ids")
"""Under which names a mapping or a dict row holds ids."""


def checked_ids(ids: Sequence[Any] | None, n: int, argument: str) -> tuple[str, ...]:
    """`n` unique ids as text, the row numbers by default; raises TaskError for anything else."""
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
            "Give each record one id of its own (`ids`), not that of what several belong to."
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


def _is_na(value: Any) -> bool:
    return type(value).__name__ in ("NAType", "NaTType", "NullScalar")


def _id_text(value: Any, argument: str) -> str:
    """The id as text; byte strings (numpy's dtype S) are read as UTF-8."""
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim:
            raise TaskError(
                f"Expected one id an entry in `{argument}`, got shape {tuple(value.shape)}. "
                "Flatten the array of ids."
            )
        value = value.item()
    if value is None or (isinstance(value, float) and value != value) or _is_na(value):
        raise TaskError(
            f"Expected an id for every entry of `{argument}`, got {value!r}. Give each record one "
            "of its own."
        )
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"Expected the ids of `{argument}` as text, got the bytes {value!r}, which are no "
            "UTF-8. Store them as strings."
        ) from error
