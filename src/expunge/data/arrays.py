"""Arrays as `Rows`: a pair (x, y), a mapping with x, y and optional ids; x may be a mapping too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.data.ids import checked_ids, id_texts, refuse_single
from expunge.data.labels import labels_of
from expunge.data.names import ClassNames
from expunge.data.plain import tensor_of
from expunge.data.rows import BadRowError, Inputs, Rows, not_finite_row
from expunge.errors import DataError

__all__ = ["from_arrays"]

_CHUNK = 4096


def from_arrays(
    x: Any, y: Any, ids: Sequence[Any] | None, argument: str, names: ClassNames | None = None
) -> Rows:
    """View arrays of n inputs and n labels; `x` may be a mapping of arrays, by the model's names.

    Every row is looked at: raises DataError with the id of one that is missing or not finite.
    """
    try:
        inputs = _inputs(x, argument)
        n = len(inputs) if isinstance(inputs, Tensor) else len(next(iter(inputs.values())))
        texts = checked_ids(ids, n, argument)
        _refuse_not_finite(inputs, n, argument)
    except BadRowError as error:
        if ids is None:
            raise error.named(()) from error
        refuse_single(ids, "ids")
        raise error.named(id_texts(ids, argument)) from error
    labels = labels_of(y, texts, argument, names)

    def read(index: Tensor) -> tuple[Inputs, Tensor]:
        if isinstance(inputs, Tensor):
            return inputs[index], labels.numbers[index]
        return {name: value[index] for name, value in inputs.items()}, labels.numbers[index]

    return Rows(
        labels=labels.numbers,
        ids=texts,
        index=torch.arange(n),
        read=read,
        given_ids=ids is not None,
        notes=labels.notes,
        names=labels.names,
    )


def _inputs(x: Any, argument: str) -> Inputs:
    what = f"the inputs of `{argument}`"
    if not isinstance(x, Mapping):
        return _rowed(tensor_of(x, what), what)
    if not x:
        raise DataError(f"Expected {what} by name, got an empty mapping.")
    parts = {}
    for name, value in x.items():
        if not isinstance(name, str):
            raise DataError(f"Expected {what} to be named by texts, got {name!r}.")
        own = f"the inputs {name!r} of `{argument}`"
        parts[name] = _rowed(tensor_of(value, own), own)
    sizes = {name: len(value) for name, value in parts.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"Expected {what} to have as many rows under each name, got {shown}.")
    return parts


def _rowed(value: Tensor, what: str) -> Tensor:
    if not value.ndim:
        raise DataError(
            f"Expected {what} to be an array with one entry a row, got a single number."
        )
    return value


def _refuse_not_finite(inputs: Inputs, n: int, argument: str) -> None:
    for value in (inputs,) if isinstance(inputs, Tensor) else inputs.values():
        for start in range(0, n if value.is_floating_point() else 0, _CHUNK):
            bad = not_finite_row(value[start : start + _CHUNK])
            if bad is not None:
                raise BadRowError(
                    start + bad,
                    lambda row: (
                        f"Expected finite inputs in `{argument}`, got NaN or infinity in row {row}."
                        " Clean the data, or check its normalisation (a division by zero?)."
                    ),
                )
