"""Labelled rows with ids: the one view of data that the doors, methods and audits share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import (
    Dataset,
)

from expunge.errors import DataError

__all__ = ["Inputs", "Rows", "parts"]


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
@dataclass(frozen=True, slots=True, eq=False)
class Rows(Dataset[tuple[Any, int]]):
    """Rows of a data set: inputs on demand, labels (n,) int64 and unique ids at hand.

    `given_ids` says whether the ids were given, or are mere row numbers. `digests` are those of the
    content of each row, where they have been computed (`expunge.data.digests`).

    Also a map-style Dataset of `(x, y)`, so that a user's training function can read it.
    """

    labels: Tensor
    ids: tuple[str, ...]
    index: Tensor
    read: Callable[[Tensor], tuple[Inputs, Tensor]]
    given_ids: bool = False
    digests: tuple[bytes, ...] | None = None

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
        """Yield batches of at most `size` rows, in `order` (all rows as stored by default).

        They are split by `parts`.
        """
        positions = torch.arange(len(self)) if order is None else order
        for part in parts(positions, size):
            yield self.batch(part)

    def select(self, positions: Tensor) -> Rows:
        """The rows at `positions`, as a view."""
        chosen = positions.tolist()
        return Rows(
            self.labels[positions],
            tuple(self.ids[i] for i in chosen),
            self.index[positions],
            self.read,
            self.given_ids,
            None if self.digests is None else tuple(self.digests[i] for i in chosen),
        )
