"""Labelled rows with ids: the one view of data that the doors, methods and audits share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import (
    Dataset,
)

from expunge.data.names import ClassNames
from expunge.errors import DataError

__all__ = ["BadRowError", "Inputs", "Rows", "not_finite_row", "parts"]


def parts(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Slices of at most `size`, in order; the last is not a single row where that can be avoided.

    Batch norm in train mode and models that squeeze cannot take one row alone.
    """
    found = values.split(size)
    if size < 3 or len(found) < 2 or len(found[-1]) > 1:
        return found
    return (*found[:-2], found[-2][:-1], torch.cat([found[-2][-1:], found[-1]]))


Inputs = Tensor | dict[str, Tensor]
"""A batch of model inputs: one tensor, or named tensors handed over as keyword arguments."""


@final
class BadRowError(DataError):
    """One row cannot be used: `place` counts from 0 where it was read, `words` say what is wrong.

    Whoever knows the ids raises it anew with the row's own: `named`.
    """

    def __init__(self, place: int, words: Callable[[str], str]) -> None:
        super().__init__(words(str(place)))
        self.place = place
        self.words = words

    def named(self, ids: Sequence[str]) -> DataError:
        """The error with the id of the row, where there is one."""
        known = self.place < len(ids)
        return DataError(self.words(ids[self.place] if known else str(self.place)))


def not_finite_row(inputs: Inputs) -> int | None:
    """The first row of a batch that holds NaN or infinity, None where there is none."""
    for value in (inputs,) if isinstance(inputs, Tensor) else inputs.values():
        if value.is_floating_point() and value.numel():
            bad = ~torch.isfinite(value).reshape(len(value), -1).all(1)
            if bool(bad.any()):
                return int(bad.nonzero()[0, 0])
    return None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Rows(Dataset[tuple[Any, int]]):
    """Rows of a data set: inputs on demand, labels (n,) int64 and unique ids at hand.

    `given_ids` says whether the ids were given, or are mere row numbers. `digests` are those of the
    content of each row, where they have been computed (`expunge.data.digests`). `notes` say how the
    data were read where that is not plain to see, `names` which names the class numbers stand for.

    Also a map-style Dataset of `(x, y)`, so that a user's training function can read it.
    """

    labels: Tensor
    ids: tuple[str, ...]
    index: Tensor
    read: Callable[[Tensor], tuple[Inputs, Tensor]]
    given_ids: bool = False
    digests: tuple[bytes, ...] | None = None
    notes: tuple[str, ...] = ()
    names: ClassNames | None = None

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
        """Read the rows at `positions` (k,).

        Raises DataError, with the id of the row, where one cannot be read, is not finite, has
        another form than the others, or another label than before.
        """
        try:
            inputs, labels = self.read(self.index[positions])
        except BadRowError as error:
            raise error.named([self.ids[i] for i in positions.tolist()]) from error
        bad = not_finite_row(inputs)
        if bad is not None:
            raise DataError(
                "Expected finite inputs, got NaN or infinity in row "
                f"{self.ids[int(positions[bad])]}. Clean the data, or check its normalisation "
                "(a division by zero?)."
            )
        known = self.labels[positions]
        if not torch.equal(labels, known):
            raise DataError(
                "Expected the data set to give the same label each time, got another label for "
                f"row {self.ids[int(positions[(labels != known).nonzero()[0, 0]])]!r}. "
                "Use a data set without random labels."
            )
        return inputs, labels

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield batches of at most `size` rows, in `order` (all rows as stored by default).

        They are split by `parts`.
        """
        positions = torch.arange(len(self)) if order is None else order
        for part in parts(positions, size):
            yield self.batch(part)

    def select(self, positions: Tensor) -> Rows:
        """The rows at `positions`, as a view."""
        chosen = positions.tolist()
        return dataclasses.replace(
            self,
            labels=self.labels[positions],
            ids=tuple(self.ids[i] for i in chosen),
            index=self.index[positions],
            digests=None if self.digests is None else tuple(self.digests[i] for i in chosen),
        )
