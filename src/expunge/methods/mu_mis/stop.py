"""When a descent of MU-Mis ends: what was seen, which rules there are, and which one fires.

Pure: looks in, an answer out. The rules are told in `docs/methods/mu-mis.md`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

__all__ = ["MOST_REFUSED", "End", "Observed", "Rules", "fired", "lost", "published_stop"]

MOST_REFUSED = 3
"""So many refused states in a row end a descent."""


@final
class End(enum.Enum):
    """Why a descent ended; the value is said in the record after "stopped by"."""

    VALIDATED = "the validated rule"
    """Panel and tune rows of the class are no longer recognised, and what stays is intact."""
    FORGET_ONLY = "the forget-only rule"
    """The panel is no longer recognised; there are no tune rows to ask."""
    PUBLISHED = "the published rule"
    """The irrelevant sensitivity has risen above its minimum and over `delta` of its start."""
    REFUSED = "three refused states in a row"
    """What stays has lost too much at three looks in a row."""
    GRADIENT = "a gradient that is not finite"
    """The loss or its gradient overflowed: the step was not taken."""
    SENSITIVITY = "a sensitivity that is not finite"
    """The weights reached at the last look are of no use."""
    MOST_STEPS = "the cap of {most_steps} steps"
    """No rule fired within `most_steps`."""


class Rules(Protocol):
    """The settings of `MuMis` that the rules ask for."""

    @property
    def stop(self) -> Literal["validated", "published"]:
        """Which rules there are."""

    @property
    def delta(self) -> float:
        """The share of its start that the irrelevant sensitivity must be over."""

    @property
    def forget_accuracy(self) -> float:
        """Percent of rows that may be recognised still."""

    @property
    def tolerance(self) -> float:
        """Points that what stays may lose."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one look saw: mean squared sensitivities and accuracies (percent).

    `forget` is the accuracy on the panel; `tune_forget` and `tune_others` are None without rows to
    measure them on. At the start the class is masked for `tune_others`, and `tune_forget` is None.
    """

    target: float
    irrelevant: float
    forget: float
    tune_forget: float | None
    tune_others: float | None


def published_stop(irrelevant: Sequence[float], delta: float) -> bool:
    """Whether the published rule fires on mean squares of the irrelevant sensitivity, latest last.

    It fires when the last has risen above the recorded minimum and its norm is over `delta` of
    its start.
    """
    risen = irrelevant[-1] > min(irrelevant)
    return risen and irrelevant[0] > 0 and math.sqrt(irrelevant[-1] / irrelevant[0]) > delta


def lost(method: Rules, looks: Sequence[Observed], tune_rows: int) -> bool:
    """Whether what stays lost more than `tolerance`, and more than chance explains."""
    before, now = looks[0].tune_others, looks[-1].tune_others
    if before is None or now is None:
        return False
    return now < before - method.tolerance - _noise(before, tune_rows)


def fired(method: Rules, looks: Sequence[Observed]) -> End | None:
    """Which stop rule fires on an accepted state, if one does."""
    first, seen = looks[0], looks[-1]
    if first.tune_others is not None and seen.tune_others is not None:
        left = max(seen.forget, seen.tune_forget or 0.0)
        return End.VALIDATED if left <= method.forget_accuracy else None
    if method.stop == "validated" and seen.forget <= method.forget_accuracy:
        return End.FORGET_ONLY
    risen = published_stop([s.irrelevant for s in looks], method.delta)
    return End.PUBLISHED if risen else None


def _noise(accuracy: float, rows: int) -> float:
    """Two standard errors of an accuracy, in points: less is not a loss yet."""
    share = min(max(accuracy / 100.0, 0.01), 0.99)
    return 200.0 * math.sqrt(share * (1 - share) / rows)
