"""What became of what stays: its mean accuracy, its worst class, and which rows moved at all."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from expunge.functional.intervals import paired_difference
from expunge.functional.membership import movement
from expunge.judging.known import chance_of
from expunge.judging.outputs import hits, percent
from expunge.reasons import Reason
from expunge.records import Limits, Outcome, OutcomeReport

__all__ = ["loss_of_the_rest", "side_effects"]


def loss_of_the_rest(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    labels: Tensor,
    limits: Limits,
    figures: dict[str, float],
) -> OutcomeReport | None:
    """What is wrong with what stays, or None; adds figures.

    `wrecked`: less than half of the accuracy above chance is left; the mean fell by more than its
    limit, and its interval excludes no loss; or a class did. `undetermined`: the mean fell by more
    than its limit, or its one-sided bound lies below `mean_bound`, and chance could have done it.
    The worst class is picked out of many, so its interval is simultaneous over the classes
    (Bonferroni): with a hundred classes of fifty rows some class falls by ten points by chance.
    """
    old, new = hits(before, labels), hits(after, labels)
    difference = new.int() - old.int()
    mean, low, high = paired_difference(difference, confidence=limits.confidence)
    worst = 100 * paired_difference(difference, confidence=2 * limits.confidence - 1)[1]
    figures.update(
        others_before=percent(old),
        others_after=percent(new),
        others_change=100 * mean,
        others_change_low=100 * low,
        others_change_high=100 * high,
        others_change_bound=worst,
    )
    points, chance = {"old": percent(old), "new": percent(new)}, chance_of(before)
    interval = {"low": 100 * low, "high": 100 * high}
    half_left = percent(new) - chance >= 0.5 * (percent(old) - chance)
    if percent(old) > chance and not half_left and high < 0:
        return OutcomeReport.of(Outcome.WRECKED, Reason.HALF_LOST, chance=chance, **points)
    beyond = -100 * mean > limits.mean_drop
    if beyond and high < 0:
        more = {"limit": limits.mean_drop, **points, **interval}
        return OutcomeReport.of(Outcome.WRECKED, Reason.MEAN_FELL, **more)
    found = _worst_class(difference, labels, limits, figures)
    if found is not None:
        return found
    if beyond:
        more = {"limit": limits.mean_drop, "rows": len(labels), **points, **interval}
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.MAY_HAVE_FALLEN, **more)
    if worst < -limits.mean_bound:
        return OutcomeReport.of(
            Outcome.UNDETERMINED,
            Reason.LOSS_NOT_EXCLUDED,
            change=100 * mean,
            rows=len(labels),
            loss=-worst,
            limit=limits.mean_bound,
        )
    return None


def _worst_class(
    difference: Tensor, labels: Tensor, limits: Limits, figures: dict[str, float]
) -> OutcomeReport | None:
    classes = labels.unique().tolist()
    simultaneous = 1.0 - (1.0 - limits.confidence) / len(classes)
    by_class = [
        (paired_difference(difference[labels == c], confidence=simultaneous), c) for c in classes
    ]
    by_class.sort(key=lambda item: item[0][0])
    figures.update(worst_change=100 * by_class[0][0][0])
    for (fall, low, high), label in by_class:
        if -100 * fall > limits.worst_drop and high < 0:
            return OutcomeReport.of(
                Outcome.WRECKED,
                Reason.CLASS_FELL,
                label=label,
                fall=-100 * fall,
                limit=limits.worst_drop,
                low=100 * low,
                high=100 * high,
            )
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
