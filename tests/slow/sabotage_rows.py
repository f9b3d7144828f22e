"""What a row of the table of sabotage is, and words that rows share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from expunge import Limits
from expunge.reasons import Reason
from expunge.records import Outcome

DONE, NO_OP, INEFFECTIVE = Outcome.DONE, Outcome.NO_OP, Outcome.INEFFECTIVE
WRECKED, UNDETERMINED = Outcome.WRECKED, Outcome.UNDETERMINED
UNVERIFIED = "not shown to be independent (level unverified) and took no part in the outcome"
OTHERWISE = "answers otherwise than the stored weights"
FELL = {Reason.HALF_LOST, Reason.MEAN_FELL, Reason.CLASS_FELL}
TOLD = {Reason.SIGNAL_LEFT, Reason.UNLIKE_UNSEEN}
LEFT_OPEN = {Reason.TRAINED_ANEW, Reason.SIGNAL_OPEN, Reason.MAY_HAVE_FALLEN}
LEFT_OPEN |= {Reason.LOSS_NOT_EXCLUDED}

WIDEST = Limits(
    forget_accuracy=20,
    class_bound=40,
    mean_drop=10,
    mean_bound=20,
    worst_drop=30,
    confidence=0.8,
    least_rows=2,
    signal_left=0.5,
    signal_new=0.2,
)
"""The loosest limits that are taken."""


@dataclass(frozen=True)
class Row:
    """One action, with what it may end in, and words that a note or the limits' line must hold.

    `limit` says why a row that ends well should not; `open` why one does not end as it should.
    """

    name: str
    run: Callable[[], Any]
    ends: Outcome | set[Outcome]
    why: Reason | set[Reason]
    says: str = ""
    limit: str = ""
    open: str = ""


@dataclass(frozen=True)
class Refused:
    """One action that is refused, by which error, and words of its message."""

    name: str
    run: Callable[..., Any]
    error: type[Exception]
    says: str
