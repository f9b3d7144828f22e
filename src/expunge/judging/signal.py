"""The membership signal: how far forget records stand out from rows the model never saw.

Signal: the larger distance from ½ of two class-matched AUCs, by loss and by margin, forget records
against judge rows. With three references or more, retrained without the records, ½ is replaced by
the mean of their own AUCs, and the interval is a prediction interval for one more retrained model,
± t(K − 1) · sd · √(1 + 1/K): rows that are easier or harder than others are so for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor

from expunge.functional.membership import Auc, class_matched_auc, losses, margins
from expunge.judging.outputs import Outputs

__all__ = [
    "ENOUGH",
    "Labels",
    "Side",
    "Signal",
    "auc_of",
    "compared",
    "prediction_factor",
    "scores_of",
    "signal_of",
]


ENOUGH = 3
"""References from which on their own spread says something."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of the forget records and of the judge rows."""

    forget: Int[Tensor, " forget"]
    judge: Int[Tensor, " judge"]


@final
@dataclass(frozen=True, slots=True)
class Side:
    """One AUC less what it is compared with (½, or the references' mean), and its interval."""

    auc: Auc
    offset: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low > 0 or self.high < 0

    def inside(self, limit: float) -> bool:
        """Whether the whole interval lies within ± `limit`."""
        return -limit < self.low and self.high < limit

    def beyond(self, limit: float) -> bool:
        """Whether the whole interval lies beyond `limit`, on either side."""
        return self.low > limit or self.high < -limit


@final
@dataclass(frozen=True, slots=True)
class Signal:
    """What one model tells of the records, by loss and by margin."""

    loss: Side
    margin: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both."""
        return self.loss, self.margin

    @property
    def value(self) -> float:
        """The larger distance."""
        return max(abs(side.offset) for side in self.sides)

    @property
    def clear(self) -> bool:
        """Whether one of them is clear of chance."""
        return any(side.clear for side in self.sides)

    def inside(self, limit: float) -> bool:
        """Whether both intervals lie within ± `limit`."""
        return all(side.inside(limit) for side in self.sides)

    @property
    def widest(self) -> Side:
        """The side whose interval reaches farther."""
        return max(self.sides, key=lambda side: max(side.high, -side.low))


def scores_of(
    copies: Sequence[Outputs], labels: Labels, name: str
) -> tuple[Float[Tensor, " forget"], Float[Tensor, " judge"]]:
    """`"loss"` (negated) or `"margin"` of each row, the mean over its copies; higher: a member."""

    def score(logits: Tensor, own: Tensor) -> Tensor:
        return -losses(logits, own) if name == "loss" else margins(logits, own)

    members, outsiders = [], []
    for outputs in copies:
        assert outputs.judge is not None
        members.append(score(outputs.forget, labels.forget))
        outsiders.append(score(outputs.judge, labels.judge))
    return torch.stack(members).mean(0), torch.stack(outsiders).mean(0)


def signal_of(
    copies: Sequence[Outputs],
    labels: Labels,
    references: Sequence[Sequence[Outputs]],
    confidence: float,
) -> Signal:
    """The signal of the model that answered `copies`, against three references or against ½."""
    return Signal(*(_side(copies, labels, references, confidence, n) for n in ("loss", "margin")))


def _side(
    copies: Sequence[Outputs],
    labels: Labels,
    references: Sequence[Sequence[Outputs]],
    confidence: float,
    name: str,
) -> Side:
    others = [auc_of(z, labels, name, confidence).value for z in references]
    return compared(auc_of(copies, labels, name, confidence), others, confidence)


def auc_of(copies: Sequence[Outputs], labels: Labels, name: str, confidence: float) -> Auc:
    """The class-matched AUC of `"loss"` or `"margin"`, with its interval."""
    members, outsiders = scores_of(copies, labels, name)
    return class_matched_auc(members, labels.forget, outsiders, labels.judge, confidence=confidence)


def compared(found: Auc, references: Sequence[float], confidence: float) -> Side:
    """The AUC against those of three references or more, or else against ½."""
    if len(references) < ENOUGH:
        low, high = max(found.low, 0.0), min(found.high, 1.0)
        return Side(found, found.value - 0.5, low - 0.5, high - 0.5)
    own = np.array(references)
    half = prediction_factor(len(own), confidence) * float(own.std(ddof=1))
    offset = found.value - float(own.mean())
    return Side(found, offset, offset - half, offset + half)


def prediction_factor(count: int, confidence: float) -> float:
    """Half-width of a prediction interval in deviations: t(K − 1) · √(1 + 1/K)."""
    return float(student.ppf(0.5 + confidence / 2, count - 1)) * math.sqrt(1 + 1 / count)
