"""Judge a record request by membership: forget records against judge rows."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.functional.membership import (
    class_matched_auc,
    losses,
    margins,
    movement,
    null_half_width,
)
from expunge.judging.damage import loss_of_the_rest, side_effects
from expunge.judging.outputs import Judged, Outputs, hits, percent
from expunge.reasons import Reason
from expunge.records import Limits, Outcome, OutcomeReport

__all__ = ["judge_unseen", "unseen_again"]


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


def judge_unseen(case: Judged) -> OutcomeReport:
    """Judge a record request by membership: forget records against judge rows of their classes.

    The signal is the larger distance from 0.5 of the class-matched loss AUC and margin AUC. It must
    lie above the band that chance gives before the edit to be judged at all, and fall by half; a
    smaller fall into the band is undetermined. `before_after_auc`, how well the largest change of a
    logit tells forget records from judge rows (an attacker who holds both models), is reported and
    not judged.
    """
    before, after, limits, gone = case.before, case.after, case.limits, case.gone
    forget_labels, judge_labels = case.labels, case.judge_labels
    figures: dict[str, float] = {
        "forget_before": percent(hits(before.forget, forget_labels)),
        "forget_after": percent(hits(after.forget, forget_labels)),
    }
    if judge_labels is None or before.judge is None or after.judge is None:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_HOLDOUT).given(figures)
    used = int(torch.isin(forget_labels, judge_labels).sum())
    figures["records_not_compared"] = float(len(forget_labels) - used)
    if not used:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            why=Reason.NO_ROW_OF_RECORDS,
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
            why=Reason.FEW_ROWS_STAY,
            reason=f"what stays could not be judged: fewer than {limits.least_rows} judge rows "
            f"(membership: {visible})",
            figures=figures,
        )
    old, new = before.judge[kept], after.judge[kept]
    beyond = side_effects(old, new, frozenset(), limits, figures)
    lost = loss_of_the_rest(old, new, judge_labels[kept], limits, figures)
    damage = lost if lost is not None and lost.outcome is Outcome.WRECKED else beyond
    if damage is not None:
        return damage.given(figures)
    if lead <= band:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            why=Reason.NO_SIGNAL_BEFORE,
            reason=f"no membership signal clear of 0.5 before the edit (excess {lead:.3f}; "
            f"{visible})",
            figures=figures,
        )
    if signal["after"] > 0.5 * signal["before"] and signal["after"] <= band:
        return OutcomeReport(
            outcome=Outcome.UNDETERMINED,
            why=Reason.SIGNAL_OPEN,
            reason=f"the membership signal went from {signal['before']:.3f} to "
            f"{signal['after']:.3f}: less than half of it is gone, but what is left cannot be told "
            f"from chance ({visible})",
            figures=figures,
        )
    if signal["after"] > 0.5 * signal["before"]:
        return OutcomeReport(
            outcome=Outcome.INEFFECTIVE,
            why=Reason.SIGNAL_LEFT,
            reason=f"the membership signal went from {signal['before']:.3f} to "
            f"{signal['after']:.3f}, less than half of it is gone",
            figures=figures,
        )
    return OutcomeReport(
        outcome=Outcome.DONE,
        why=Reason.LIKE_UNSEEN,
        reason=f"the membership signal fell from {signal['before']:.3f} to {signal['after']:.3f}",
        figures=figures,
    )


def unseen_again(case: Judged) -> OutcomeReport:
    """Judge an earlier record request after a later one: can its records be told apart again?

    Ineffective where the excess of an AUC over 0.5, or below it, is now above the band of chance,
    and was within it before or half as large at most. A step of less than half the band does not
    count: a signal at the edge would cross it for nothing. Records of classes that are gone by now
    are left out.
    """
    before, after, limits, gone = case.before, case.after, case.limits, case.gone
    labels, judge_labels = case.labels, case.judge_labels
    if judge_labels is None or before.judge is None or after.judge is None:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_HOLDOUT)
    stays = ~torch.isin(labels, torch.tensor(sorted(gone), dtype=torch.int64))
    if not bool(stays.any()):
        return OutcomeReport.of(Outcome.DONE, Reason.CLASSES_GONE)
    labels = labels[stays]
    band = null_half_width(labels, judge_labels, confidence=limits.confidence)
    if band >= 0.5:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.TOO_FEW)
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
            facts = {"old": old, "new": new, "band": band}
            return OutcomeReport.of(Outcome.INEFFECTIVE, Reason.TOLD_AGAIN, **facts).given(figures)
    return OutcomeReport.of(Outcome.DONE, Reason.STAYS_UNSEEN).given(figures)
