"""What became of what stays: its mean accuracy, its worst class, and which rows moved at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from expunge.functional.intervals import paired_difference
from expunge.functional.membership import movement
from expunge.judging.known import chance_of
from expunge.judging.outputs import hits, percent
from expunge.judging.signal import ENOUGH, prediction_factor
from expunge.reasons import Reason
from expunge.records import Limits, Outcome, OutcomeReport

__all__ = ["loss_of_the_rest", "side_effects"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Standard:
    """What accuracy is compared with: the original's hits, or those of three references or more."""

    after: Bool[Tensor, " rows"]
    others: tuple[Bool[Tensor, " rows"], ...]

    def change(self, places: Tensor, confidence: float) -> tuple[float, float, float]:
        """Mean change on some rows, in points, with its interval.

        Against references the interval is the wider of two: what one more retrained model may
        differ by from their mean, and the mean width of the paired intervals against each.
        """
        paired = [
            paired_difference(self.after[places].int() - other[places].int(), confidence=confidence)
            for other in self.others
        ]
        if len(self.others) < ENOUGH:
            mean, low, high = paired[0]
            return 100 * mean, 100 * low, 100 * high
        own = torch.tensor([float(other[places].double().mean()) for other in self.others])
        spread = prediction_factor(len(own), confidence) * float(own.double().std())
        half = max(spread, sum(high - low for _, low, high in paired) / (2 * len(paired)))
        mean = sum(mean for mean, _, _ in paired) / len(paired)
        return 100 * mean, 100 * (mean - half), 100 * (mean + half)

    def words(self) -> str:
        """The accuracy that is compared with, and whose it is where not the original's."""
        mean = sum(percent(other) for other in self.others) / len(self.others)
        whose = f" (the mean of {len(self.others)} retrained models)"
        return f"{mean:.2f} %" + (whose if len(self.others) >= ENOUGH else "")


def loss_of_the_rest(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    labels: Tensor,
    limits: Limits,
    figures: dict[str, float],
    references: Sequence[Float[Tensor, "rows classes"]] = (),
) -> OutcomeReport | None:
    """What is wrong with what stays, or None; adds figures.

    Compared with the original (`before`), or with three references or more. `wrecked`: less than
    half of the original's accuracy above chance is left; the mean fell by more than its limit, and
    its interval excludes no loss; or a class did. `undetermined`: the mean fell by more than its
    limit, or its one-sided bound lies below `mean_bound`, and chance could have done it. The worst
    class is picked out of many, so its interval is simultaneous over the classes (Bonferroni): with
    a hundred classes of fifty rows some class falls by ten points by chance.
    """
    old, new = hits(before, labels), hits(after, labels)
    whole = torch.ones(len(labels), dtype=torch.bool)
    original = _Standard(new, (old,)).change(whole, limits.confidence)
    figures.update(
        others_before=percent(old),
        others_after=percent(new),
        others_change=original[0],
        others_change_low=original[1],
        others_change_high=original[2],
    )
    chance = chance_of(before)
    half_left = percent(new) - chance >= 0.5 * (percent(old) - chance)
    if percent(old) > chance and not half_left and original[2] < 0:
        facts = {"old": f"{percent(old):.2f} %", "new": percent(new), "chance": chance}
        return OutcomeReport.of(Outcome.WRECKED, Reason.HALF_LOST, **facts)
    enough = len(references) >= ENOUGH
    standard = _Standard(new, tuple(hits(z, labels) for z in references) if enough else (old,))
    mean, low, high = standard.change(whole, limits.confidence)
    worst = standard.change(whole, 2 * limits.confidence - 1)[1]
    figures.update(others_change_bound=worst)
    if enough:
        figures.update(others_against_references=mean)
    facts = {"old": standard.words(), "new": percent(new), "low": low, "high": high}
    facts |= {"limit": limits.mean_drop, "rows": len(labels)}
    beyond = -mean > limits.mean_drop
    if beyond and high < 0:
        return OutcomeReport.of(Outcome.WRECKED, Reason.MEAN_FELL, **facts)
    found = _worst_class(standard, labels, limits, figures)
    if found is not None:
        return found
    if beyond:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.MAY_HAVE_FALLEN, **facts)
    if worst < -limits.mean_bound:
        return OutcomeReport.of(
            Outcome.UNDETERMINED,
            Reason.LOSS_NOT_EXCLUDED,
            change=mean,
            rows=len(labels),
            loss=-worst,
            limit=limits.mean_bound,
        )
    return None


def _worst_class(
    standard: _Standard, labels: Tensor, limits: Limits, figures: dict[str, float]
) -> OutcomeReport | None:
    classes = labels.unique().tolist()
    simultaneous = 1.0 - (1.0 - limits.confidence) / len(classes)
    by_class = [(standard.change(labels == c, simultaneous), c) for c in classes]
    by_class.sort(key=lambda item: item[0][0])
    figures.update(worst_change=by_class[0][0][0])
    for (change, low, high), label in by_class:
        if -change > limits.worst_drop and high < 0:
            facts = {"label": label, "fall": -change, "limit": limits.worst_drop}
            more = {"low": low, "high": high}
            return OutcomeReport.of(Outcome.WRECKED, Reason.CLASS_FELL, **facts, **more)
    return None


def side_effects(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    gone: frozenset[int],
    limits: Limits,
    figures: dict[str, float],
) -> OutcomeReport | None:
    """Which side effect is beyond its limit, or None; adds figures.

    `others_moved` is the share of rows with any other logit among the classes that stay,
    `others_flipped` the share with another most likely class; `before` has the outputs that are
    gone at −inf.
    """
    stays = [c for c in range(before.shape[1]) if c not in gone]
    moved = percent(movement(before[:, stays], after[:, stays]) > 0)
    flipped = percent(before.argmax(1) != after.argmax(1))
    figures.update(others_moved=moved, others_flipped=flipped)
    for share, limit, why in (
        (moved, limits.most_moved, Reason.MOVED),
        (flipped, limits.most_flipped, Reason.FLIPPED),
    ):
        if share > limit:
            return OutcomeReport.of(Outcome.WRECKED, why, share=share, limit=limit)
    return None
