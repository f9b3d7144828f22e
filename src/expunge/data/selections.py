"""What a caller selects by: whole numbers, each entry once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from expunge.data.ids import refuse_single
from expunge.errors import TaskError

__all__ = ["refuse_doubles", "whole_numbers"]


def whole_numbers(values: Iterable[Any], argument: str) -> list[int]:
    """The entries as integers; raises TaskError for truth values, fractions and texts."""
    refuse_single(values, argument)
    numbers = []
    for value in values:
        kind = str(getattr(value, "dtype", type(value).__name__))
        whole: Any = None if "bool" in kind else value
        try:
            numbers.append(operator.index(whole))
        except TypeError as error:
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
