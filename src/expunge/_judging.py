"""The holdout split, and how a run's outcome is judged. Used by both doors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from expunge.data.rows import Rows, content_digests
from expunge.errors import TaskError
from expunge.functional.intervals import paired_difference
from expunge.functional.membership import (
    class_matched_auc,
    losses,
    margins,
    movement,
    null_half_width,
)
from expunge.records import Limits, Outcome, OutcomeReport

__all__ = [
    "Outputs",
    "absent_again",
    "clean_holdout",
    "judge_absent",
    "judge_unseen",
    "masked",
    "most_known",
    "split_holdout",
    "tune_and_judge",
    "unseen_again",
]


def clean_holdout(holdout: Rows, forget: Sequence[Rows]) -> tuple[Rows, int]:
    """Drop holdout rows whose content is also in a forget set; above 1 % is an error."""
    known = {digest for rows in forget for digest in content_digests(rows)}
    fresh = [i for i, d in enumerate(content_digests(holdout)) if d not in known]
    dropped = len(holdout) - len(fresh)
    if dropped > 0.01 * len(holdout):
        raise TaskError(
            f"Expected a holdout of rows never trained on, but {dropped} of {len(holdout)} of its "
            "rows are also in the forget set (more than 1 %). Use data the model has not seen."
        )
    return (holdout.select(torch.tensor(fresh, dtype=torch.int64)) if dropped else holdout), dropped


def tune_and_judge(holdout: Rows, forget: Sequence[Rows], seed: int) -> tuple[Rows, Rows, int]:
    """Split the whole holdout, then drop from each part what is also in a forget set.

    In this order a row never changes sides, whatever is forgotten later. Returns (tune, judge,
    rows dropped).
    """
    fresh, dropped = clean_holdout(holdout, forget)
    tune, judge = split_holdout(holdout, seed)
    if dropped:
        known = set(fresh.ids)
        tune, judge = (
            part.select(torch.tensor([n for n, i in enumerate(part.ids) if i in known]).long())
            for part in (tune, judge)
        )
    return tune, judge, dropped


def split_holdout(holdout: Rows, seed: int) -> tuple[Rows, Rows]:
    """Split once into (tune, judge): half of each class, by the hash of seed and record id.

    The same holdout and seed give the same parts, whatever the order of the rows. With an odd
    number the extra row goes to judge.
    """
    rank = [hashlib.sha256(f"{seed}\0{i}".encode()).digest() for i in holdout.ids]
    tune: list[int] = []
    for label in holdout.labels.unique().tolist():
        members = (holdout.labels == label).nonzero().flatten().tolist()
        members.sort(key=lambda i: rank[i])
        tune += members[: len(members) // 2]
    chosen = torch.zeros(len(holdout), dtype=torch.bool)
    chosen[torch.tensor(tune, dtype=torch.int64)] = True
    return (
        holdout.select(chosen.nonzero().flatten()),
        holdout.select((~chosen).nonzero().flatten()),
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Logits of one model on the forget records and on judge rows (None without a holdout)."""

    forget: Float[Tensor, "forget classes"]
    judge: Float[Tensor, "judge classes"] | None


def masked(
    logits: Float[Tensor, "rows classes"], gone: frozenset[int]
) -> Float[Tensor, "rows classes"]:
    """The same logits with the forgotten outputs at −inf."""
    out = logits.clone()
    out[:, sorted(gone)] = -torch.inf
    return out


def _hits(logits: Float[Tensor, "rows classes"], labels: Tensor) -> Bool[Tensor, " rows"]:
    return logits.argmax(1) == labels


def _percent(hits: Bool[Tensor, " rows"]) -> float:
    return 100.0 * float(hits.double().mean())


def _loss_of_the_rest(
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
    old, new = _hits(before, labels), _hits(after, labels)
    difference = new.int() - old.int()
    mean, low, high = paired_difference(difference, confidence=limits.confidence)
    figures.update(
        others_before=_percent(old),
        others_after=_percent(new),
        others_change=100 * mean,
        others_change_low=100 * low,
        others_change_high=100 * high,
    )
    if -100 * mean > limits.mean_drop and high < 0:
        return (
            f"what stays fell from {_percent(old):.2f} % to {_percent(new):.2f} % (limit: "
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


def most_known(logits: Float[Tensor, "rows classes"], labels: Tensor) -> float:
    """Accuracy in percent on the class that is recognised best: none may hide behind another."""
    hits = _hits(logits, labels)
    return max(_percent(hits[labels == c]) for c in labels.unique().tolist())


def judge_absent(
    before: Outputs,
    after: Outputs,
    forget_labels: Tensor,
    judge_labels: Tensor | None,
    gone: frozenset[int],
    limits: Limits,
) -> OutcomeReport:
    """Judge a class request: is the class gone, and did what stays survive?

    What stays is compared with the original *with the forgotten outputs masked*, since taking a
    class away lifts its neighbours.
    """
    figures: dict[str, float] = {
        "forget_before": _percent(_hits(before.forget, forget_labels)),
        "forget_after": _percent(_hits(after.forget, forget_labels)),
    }
    left = most_known(after.forget, forget_labels)
    where = "forget records"
    still_known = left > limits.forget_accuracy
    rest: Tensor | None = None
    if judge_labels is not None and before.judge is not None and after.judge is not None:
        of_class = torch.isin(judge_labels, torch.tensor(sorted(gone)))
        rest = ~of_class
        if bool(of_class.any()):
            own = judge_labels[of_class]
            figures["judge_class_after"] = _percent(_hits(after.judge[of_class], own))
            unseen = most_known(after.judge[of_class], own)
            if not still_known and unseen > limits.forget_accuracy:
                left, still_known, where = unseen, True, "judge rows of the class"
    wrecked: str | None = None
    if rest is not None and before.judge is not None and after.judge is not None:
        if int(rest.sum()) >= limits.least_rows and judge_labels is not None:
            wrecked = _loss_of_the_rest(
                masked(before.judge[rest], gone),
                after.judge[rest],
                judge_labels[rest],
                limits,
                figures,
            )
        else:
            rest = None
    if wrecked is not None:
        return OutcomeReport(outcome=Outcome.WRECKED, reason=wrecked, figures=figures)
    if still_known:
        return OutcomeReport(
            outcome=Outcome.INEFFECTIVE,
            reason=f"{left:.2f} % of the {where} are still recognised (limit: "
            f"{limits.forget_accuracy:g} %)",
            figures=figures,
        )
    if rest is None:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            reason="the class is no longer given, but what stays could not be judged: "
            + (
                "there is no holdout"
                if judge_labels is None
                else f"fewer than {limits.least_rows} judge rows of classes that stay"
            ),
            figures=figures,
        )
    return OutcomeReport(
        outcome=Outcome.DONE,
        reason=f"{figures['forget_after']:.2f} % of the forget records still recognised, what "
        f"stays changed by {figures['others_change']:+.2f} points against the masked original",
        figures=figures,
    )


def _aucs(
    outputs: Outputs, labels: Tensor, judge_labels: Tensor, limits: Limits
) -> dict[str, tuple[float, float, float]]:
    """Class-matched AUC with its interval, by loss and by margin: records against judge rows."""
    assert outputs.judge is not None
    found = {}
    for name, score in (("loss", lambda z, y: -losses(z, y)), ("margin", margins)):
        value, low, high, _ = class_matched_auc(
            score(outputs.forget, labels),
            labels,
            score(outputs.judge, judge_labels),
            judge_labels,
            confidence=limits.confidence,
        )
        found[name] = value, max(low, 0.0), min(high, 1.0)
    return found


def judge_unseen(
    before: Outputs,
    after: Outputs,
    forget_labels: Tensor,
    judge_labels: Tensor | None,
    gone: frozenset[int],
    limits: Limits,
) -> OutcomeReport:
    """Judge a record request by membership: forget records against judge rows of their classes.

    The signal is the larger distance from 0.5 of the class-matched loss AUC and margin AUC. It must
    lie above the band that chance gives before the edit to be judged at all, and fall by half; a
    smaller fall into the band is undetermined. Two figures are reported and not judged:
    `before_after_auc`, how well the largest change of a logit tells forget records from judge rows
    (an attacker who holds both models), and `others_moved`, the percentage of judge rows with any
    change.
    """
    figures: dict[str, float] = {
        "forget_before": _percent(_hits(before.forget, forget_labels)),
        "forget_after": _percent(_hits(after.forget, forget_labels)),
    }
    if judge_labels is None or before.judge is None or after.judge is None:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED, reason="there is no holdout", figures=figures
        )
    used = int(torch.isin(forget_labels, judge_labels).sum())
    figures["records_not_compared"] = float(len(forget_labels) - used)
    if not used:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            reason="no judge row has the class of a forget record",
            figures=figures,
        )
    signal: dict[str, float] = {}
    for when, outputs in (("before", before), ("after", after)):
        aucs = _aucs(outputs, forget_labels, judge_labels, limits)
        for name, (value, low, high) in aucs.items():
            figures[f"{name}_auc_{when}"] = value
            figures[f"{name}_auc_{when}_low"] = low
            figures[f"{name}_auc_{when}_high"] = high
        signal[when] = max(abs(value - 0.5) for value, _, _ in aucs.values())
    band = null_half_width(forget_labels, judge_labels, confidence=limits.confidence)
    lead = max(figures["loss_auc_before"], figures["margin_auc_before"]) - 0.5
    visible = f"with {used} forget records an excess of {band:.3f} could have been seen"
    figures["smallest_visible_excess"] = band
    moved = movement(before.judge, after.judge)
    figures["before_after_auc"] = class_matched_auc(
        movement(before.forget, after.forget), forget_labels, moved, judge_labels
    )[0]
    kept = ~torch.isin(judge_labels, torch.tensor(sorted(gone), dtype=torch.int64))
    if int(kept.sum()) < limits.least_rows:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            reason=f"what stays could not be judged: fewer than {limits.least_rows} judge rows "
            f"(membership: {visible})",
            figures=figures,
        )
    figures["others_moved"] = _percent(moved[kept] > 0)
    wrecked = _loss_of_the_rest(
        before.judge[kept], after.judge[kept], judge_labels[kept], limits, figures
    )
    if wrecked is not None:
        return OutcomeReport(outcome=Outcome.WRECKED, reason=wrecked, figures=figures)
    if lead <= band:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            reason=f"no membership signal clear of 0.5 before the edit (excess {lead:.3f}; "
            f"{visible})",
            figures=figures,
        )
    if signal["after"] > 0.5 * signal["before"] and signal["after"] <= band:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            reason=f"the membership signal went from {signal['before']:.3f} to "
            f"{signal['after']:.3f}: less than half of it is gone, but what is left cannot be told "
            f"from chance ({visible})",
            figures=figures,
        )
    if signal["after"] > 0.5 * signal["before"]:
        return OutcomeReport(
            outcome=Outcome.INEFFECTIVE,
            reason=f"the membership signal went from {signal['before']:.3f} to "
            f"{signal['after']:.3f}, less than half of it is gone",
            figures=figures,
        )
    return OutcomeReport(
        outcome=Outcome.DONE,
        reason=f"the membership signal fell from {signal['before']:.3f} to {signal['after']:.3f}",
        figures=figures,
    )


def absent_again(
    before: Outputs,
    after: Outputs,
    labels: Tensor,
    judge_labels: Tensor | None,
    gone: frozenset[int],
    limits: Limits,
) -> OutcomeReport:
    """Judge an earlier class request after a later one: are its records recognised again?"""
    del before, judge_labels, gone
    left = most_known(after.forget, labels)
    return OutcomeReport(
        outcome=Outcome.INEFFECTIVE if left > limits.forget_accuracy else Outcome.DONE,
        reason=f"{left:.2f} % recognised again (limit: {limits.forget_accuracy:g} %)",
    )


def unseen_again(
    before: Outputs,
    after: Outputs,
    labels: Tensor,
    judge_labels: Tensor | None,
    gone: frozenset[int],
    limits: Limits,
) -> OutcomeReport:
    """Judge an earlier record request after a later one: can its records be told apart again?

    Ineffective where the excess of an AUC over 0.5, or below it, is now above the band of chance,
    and was within it before or half as large at most. A step of less than half the band does not
    count: a signal at the edge would cross it for nothing. Records of classes that are gone by now
    are left out.
    """
    if judge_labels is None or before.judge is None or after.judge is None:
        return OutcomeReport(outcome=Outcome.UNDETERMINED, reason="there is no holdout")
    stays = ~torch.isin(labels, torch.tensor(sorted(gone), dtype=torch.int64))
    if not bool(stays.any()):
        return OutcomeReport(outcome=Outcome.DONE, reason="their classes are gone")
    labels = labels[stays]
    band = null_half_width(labels, judge_labels, confidence=limits.confidence)
    if band >= 0.5:
        return OutcomeReport(outcome=Outcome.UNDETERMINED, reason="too few")
    aucs = [
        _aucs(Outputs(forget=z.forget[stays], judge=z.judge), labels, judge_labels, limits)
        for z in (before, after)
    ]
    sides = [
        [max(sign * (value - 0.5) for value, _, _ in found.values()) for found in aucs]
        for sign in (1, -1)
    ]
    figures = {
        "earlier_excess_after": max(new for _, new in sides),
        "earlier_smallest_visible_excess": band,
    }
    for old, new in sides:
        if new > band and old <= max(band, 0.5 * new) and new - old > 0.5 * band:
            return OutcomeReport(
                outcome=Outcome.INEFFECTIVE,
                reason=f"their membership signal rose from {old:.3f} to {new:.3f} (chance: below "
                f"{band:.3f})",
                figures=figures,
            )
    return OutcomeReport(
        outcome=Outcome.DONE, reason="their membership signal did not rise", figures=figures
    )
