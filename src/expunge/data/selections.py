"""What a caller selects by: whole numbers or a mask, each entry once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.data.ids import refuse_single
from expunge.errors import TaskError

__all__ = ["masked_places", "refuse_doubles", "whole_numbers"]


def masked_places(values: Any, n: int, argument: str, each: str) -> list[int] | None:
    """The places where a mask is true; None for what is no mask.

    A mask is an array, tensor, series or list of truth values alone. Raises TaskError where it does
    not have one for every `each`, of which there are `n`.
    """
    mask = _truth_values(values)
    if mask is None:
        return None
    if len(mask) != n:
        raise TaskError(
            f"Expected a mask in `{argument}` to have {n} truth values, one a {each}, got "
            f"{len(mask)}. Give one of that length, or the entries themselves "
            "(`numpy.flatnonzero(mask)` for numbers)."
        )
    return [place for place, holds in enumerate(mask) if holds]


def _truth_values(values: Any) -> list[bool] | None:
    """The entries, where all are truth values in one dimension."""
    found = values
    if isinstance(values, Tensor):
        found = values.detach().cpu().numpy() if values.dtype is torch.bool else None
    elif hasattr(values, "to_numpy"):
        try:
            found = np.asarray(values.to_numpy())
        except Exception:  # noqa: BLE001 - whatever it is, its entries are read one by one
            return None
    if isinstance(found, np.ndarray):
        found = found.tolist() if found.ndim == 1 and found.dtype.kind in "bO" else None
    if not isinstance(found, (list, tuple)) or not found:
        return None
    whole = all(isinstance(entry, (bool, np.bool_)) for entry in found)
    return [bool(entry) for entry in found] if whole else None


def whole_numbers(values: Iterable[Any], argument: str) -> list[int]:
    """The entries as integers; raises TaskError for truth values, fractions and texts."""
    refuse_single(values, argument)
    numbers = []
    for value in values:
        kind = str(getattr(value, "dtype", type(value).__name__))
        whole: Any = None if "bool" in kind else value
        try:
            numbers.append(operator.index(whole))
        except Exception as error:
            raise TaskError(
                f"Expected `{argument}` to be whole numbers, got {value!r}. Turn a mask into row "
                "numbers first."
            ) from error
    return numbers


def refuse_doubles(values: Sequence[Any], argument: str) -> None:
    """Raise TaskError where an entry stands twice."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise TaskError(
                f"Expected each record once in `{argument}`, got {value!r} twice. Remove the "
                "duplicate."
            )
        seen.add(value)
