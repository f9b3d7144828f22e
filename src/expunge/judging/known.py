"""What was known before an edit: nothing can be concluded where it was nothing to speak of."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from expunge.judging.outputs import percent
from expunge.reasons import Reason
from expunge.records import Limits, Outcome, OutcomeReport

__all__ = ["chance_of", "near_chance", "near_chance_before", "not_known_before", "unknown_labels"]


def not_known_before(
    right: Bool[Tensor, " forget"], labels: Tensor, limits: Limits
) -> tuple[OutcomeReport, ...]:
    """One `undetermined` for each class that was not recognised before, within the limit.

    `right` says whether the given model gives each forget record its class.
    """
    limit, found = limits.forget_accuracy, list[OutcomeReport]()
    for label in sorted(unknown_labels(right, labels, limits)):
        facts = {"label": label, "known": percent(right[labels == label]), "limit": limit}
        found.append(OutcomeReport.of(Outcome.UNDETERMINED, Reason.NOT_KNOWN_BEFORE, **facts))
    return tuple(found)


def unknown_labels(
    right: Bool[Tensor, " forget"], labels: Tensor, limits: Limits
) -> frozenset[int]:
    """The classes that were not recognised before, within the limit."""
    return frozenset(
        label
        for label in labels.unique().tolist()
        if percent(right[labels == label]) <= limits.forget_accuracy
    )


def near_chance_before(accuracy: float, chance: float) -> OutcomeReport | None:
    """`undetermined` where what stays was near chance before; both are in percent."""
    if not near_chance(accuracy, chance):
        return None
    facts = {"old": accuracy, "chance": chance}
    return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NEAR_CHANCE_BEFORE, **facts)


def near_chance(accuracy: float, chance: float) -> bool:
    """Whether an accuracy is nearer than 15 % of the way from chance to all right."""
    return accuracy <= chance + 0.15 * (100.0 - chance)


def chance_of(logits: Float[Tensor, "rows classes"]) -> float:
    """The accuracy of guessing among the outputs that are not at −inf, in percent."""
    return 100.0 / max(int((~torch.isneginf(logits)).any(0).sum()), 1)
