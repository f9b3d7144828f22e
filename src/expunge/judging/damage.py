"""What became of what stays: its mean accuracy, its worst class, and which rows moved at all."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from expunge.functional.intervals import paired_difference
from expunge.functional.membership import movement
from expunge.judging.outputs import hits, percent
from expunge.records import Limits

__all__ = ["loss_of_the_rest", "side_effects"]


def loss_of_the_rest(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    labels: Tensor,
    limits: Limits,
    figures: dict[str, float],
) -> str | None:
    """The sentence that says why what stays is wrecked, or None; adds figures.

    The worst class is picked out of many, so its interval is simultaneous over the classes
    (Bonferroni): with a hundred classes of fifty rows some class falls by ten points by chance.
    """
    old, new = hits(before, labels), hits(after, labels)
    difference = new.int() - old.int()
    mean, low, high = paired_difference(difference, confidence=limits.confidence)
    figures.update(
        others_before=percent(old),
        others_after=percent(new),
        others_change=100 * mean,
        others_change_low=100 * low,
        others_change_high=100 * high,
    )
    if -100 * mean > limits.mean_drop and high < 0:
        return (
            f"what stays fell from {percent(old):.2f} % to {percent(new):.2f} % (limit: "
            f"{limits.mean_drop:g} points; interval {100 * low:.2f} to {100 * high:.2f})"
        )
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
                f"class {label} fell by {-100 * fall:.1f} points (limit: {limits.worst_drop:g}; "
                f"interval {100 * low:.1f} to {100 * high:.1f})"
            )
    return None


def side_effects(
    before: Float[Tensor, "rows classes"],
    after: Float[Tensor, "rows classes"],
    gone: frozenset[int],
    limits: Limits,
    figures: dict[str, float],
) -> str | None:
    """The sentence that says which side effect is beyond its limit, or None; adds figures.

    `others_moved` is the share of rows with any other logit among the classes that stay,
    `others_flipped` the share with another most likely class; `before` has the outputs that are
    gone at −inf.
    """
    stays = [c for c in range(before.shape[1]) if c not in gone]
    moved = percent(movement(before[:, stays], after[:, stays]) > 0)
    flipped = percent(before.argmax(1) != after.argmax(1))
    figures.update(others_moved=moved, others_flipped=flipped)
    if moved > limits.most_moved:
        return f"{moved:.2f} % of what stays got other logits (limit: {limits.most_moved:g} %)"
    if flipped > limits.most_flipped:
        return f"{flipped:.2f} % of what stays changed its class (limit: {limits.most_flipped:g} %)"
    return None
