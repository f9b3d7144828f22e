"""What became of what stays: its mean accuracy, its worst class, and which rows moved at all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from expunge.functional.intervals import paired_difference
from expunge.functional.membership import movement
from expunge.judging.outputs import hits, percent
from expunge.records import Limits, Outcome

__all__ = ["Finding", "chance_of", "loss_of_the_rest", "near_chance", "side_effects"]


Finding = tuple[Outcome, str]
"""`wrecked` or `undetermined`, and the sentence that says why."""


def loss_of_the_rest(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    labels: Tensor,
    limits: Limits,
    figures: dict[str, float],
) -> Finding | None:
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
    fell = f"what stays fell from {percent(old):.2f} % to {percent(new):.2f} %"
    chance = chance_of(before)
    if percent(old) > chance and percent(new) - chance < 0.5 * (percent(old) - chance) and high < 0:
        return Outcome.WRECKED, f"{fell}: less than half above chance ({chance:.1f} %) is left"
    interval = f"interval {100 * low:.2f} to {100 * high:.2f}"
    if -100 * mean > limits.mean_drop and high < 0:
        return Outcome.WRECKED, f"{fell} (limit: {limits.mean_drop:g} points; {interval})"
    found = _worst_class(difference, labels, limits, figures)
    if found is not None:
        return found
    if -100 * mean > limits.mean_drop:
        return (
            Outcome.UNDETERMINED,
            (
                f"{fell} (limit: {limits.mean_drop:g} points), which chance could have done on "
                f"{len(labels):,} judge rows ({interval})"
            ),
        )
    if worst < -limits.mean_bound:
        return (
            Outcome.UNDETERMINED,
            (
                f"what stays changed by {100 * mean:+.2f} points, but on {len(labels):,} judge "
                f"rows a loss of {-worst:.2f} cannot be excluded (limit: {limits.mean_bound:g})"
            ),
        )
    return None


def chance_of(logits: Float[Tensor, "rows classes"]) -> float:
    """The accuracy of guessing among the outputs that are not at −inf, in percent."""
    return 100.0 / max(int((~torch.isneginf(logits)).any(0).sum()), 1)


def near_chance(accuracy: float, chance: float) -> bool:
    """Whether an accuracy is nearer than 15 % of the way from chance to all right."""
    return accuracy <= chance + 0.15 * (100.0 - chance)


def _worst_class(
    difference: Tensor, labels: Tensor, limits: Limits, figures: dict[str, float]
) -> Finding | None:
    classes = labels.unique().tolist()
    simultaneous = 1.0 - (1.0 - limits.confidence) / len(classes)
    by_class = [
        (paired_difference(difference[labels == c], confidence=simultaneous), c) for c in classes
    ]
    by_class.sort(key=lambda item: item[0][0])
    figures.update(worst_change=100 * by_class[0][0][0])
    for (fall, low, high), label in by_class:
        if -100 * fall > limits.worst_drop and high < 0:
            return (
                Outcome.WRECKED,
                (
                    f"class {label} fell by {-100 * fall:.1f} points (limit: "
                    f"{limits.worst_drop:g}; interval {100 * low:.1f} to {100 * high:.1f})"
                ),
            )
    return None


def side_effects(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    gone: frozenset[int],
    limits: Limits,
    figures: dict[str, float],
) -> Finding | None:
    """Which side effect is beyond its limit, or None; adds figures.

    `others_moved` is the share of rows with any other logit among the classes that stay,
    `others_flipped` the share with another most likely class; `before` has the outputs that are
    gone at −inf.
    """
    stays = [c for c in range(before.shape[1]) if c not in gone]
    moved = percent(movement(before[:, stays], after[:, stays]) > 0)
    flipped = percent(before.argmax(1) != after.argmax(1))
    figures.update(others_moved=moved, others_flipped=flipped)
    if moved > limits.most_moved:
        reason = f"{moved:.2f} % of what stays got other logits (limit: {limits.most_moved:g} %)"
        return Outcome.WRECKED, reason
    if flipped > limits.most_flipped:
        reason = f"{flipped:.2f} % of what stays changed class (limit: {limits.most_flipped:g} %)"
        return Outcome.WRECKED, reason
    return None
