"""Judge an earlier record request after a later one: can its records be told apart again?"""

from __future__ import annotations

import torch

from expunge.functional.membership import null_half_width
from expunge.judging.outputs import Judged, Outputs
from expunge.judging.signal import Labels, Signal, signal_of
from expunge.reasons import Reason
from expunge.records import Outcome, OutcomeReport

__all__ = ["unseen_again"]


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
    rows = Labels(labels, judge_labels)
    signals = [
        signal_of((Outputs(forget=z.forget[stays], judge=z.judge),), rows, (), limits.confidence)
        for z in (before, after)
    ]
    sides = [[_excess(signal, sign) for signal in signals] for sign in (1, -1)]
    figures = {
        "earlier_excess_after": max(new for _, new in sides),
        "earlier_smallest_visible_excess": band,
    }
    for old, new in sides:
        if new > band and old <= max(band, 0.5 * new) and new - old > 0.5 * band:
            facts = {"old": old, "new": new, "band": band}
            return OutcomeReport.of(Outcome.INEFFECTIVE, Reason.TOLD_AGAIN, **facts).given(figures)
    return OutcomeReport.of(Outcome.DONE, Reason.STAYS_UNSEEN).given(figures)


def _excess(signal: Signal, sign: int) -> float:
    return max(sign * side.offset for side in signal.sides)
