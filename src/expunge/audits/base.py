"""What every audit is: a question put to a `Case`, answered with measurements, never a verdict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from expunge.records import Aim, Measurement, NotMeasured, Scope, Standing

__all__ = ["Audit", "AuditInfo", "Case", "Part", "RowSet"]

Part = Literal["forget-train", "forget-test", "others", "retained", "retained-same"]
"""Which rows: the forget records, judge rows of the forgotten classes (of the forget records'
classes for a record request), judge rows of the classes that stay; for a record request also rows
that stay in the training data, of all classes and of the forget records' classes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditInfo:
    """What an audit asks, in one sentence, and where the measure comes from."""

    name: str
    question: str
    source: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class RowSet:
    """One part of the data: its labels, and each subject's logits on it."""

    labels: Tensor
    logits: Mapping[str, Float[Tensor, "rows classes"]]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Everything an audit may look at, read once: logits of each subject on each part.

    `subjects` are `before`, `after`, `mask-class` (class requests) and the names in `references`,
    the retrained models; `standing` tells of each what shows that it is one. A part without rows is
    missing from `parts`.
    """

    aim: Aim
    scope: Scope
    gone: frozenset[int]
    classes: int
    subjects: tuple[str, ...]
    standing: tuple[Standing, ...]
    parts: Mapping[Part, RowSet]
    seed: int

    @property
    def references(self) -> tuple[str, ...]:
        """The names of the retrained models."""
        return tuple(one.reference for one in self.standing)

    def part(self, name: Part) -> RowSet | None:
        """The rows of one part, or None where there are none."""
        return self.parts.get(name)

    def level(self) -> Literal["C1", "C4", "unverified"]:
        """The comparator level: retrained models, the holdout alone where none is given.

        C1 only where every one of them is shown to be independent, else unverified.
        """
        if not self.standing:
            return "C4"
        return "C1" if all(one.level == "C1" for one in self.standing) else "unverified"


class Audit(ABC):
    """A question: frozen settings plus one verb that only measures."""

    __slots__ = ()

    info: ClassVar[AuditInfo]

    @abstractmethod
    def measure(self, case: Case) -> Sequence[Measurement | NotMeasured]:
        """Answer the question on `case`; what cannot be measured is a `NotMeasured`, not absent."""


def percent(hits: Tensor) -> float:
    """Share of true entries, in percent."""
    return 100.0 * float(hits.double().mean())


def correct(rows: RowSet, subject: str) -> Tensor:
    """Whether the subject's most likely class is the row's label."""
    return torch.eq(rows.logits[subject].argmax(1), rows.labels)
