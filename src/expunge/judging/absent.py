"""Judge a class request: is the class gone, and did what stays survive?"""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.judging.damage import loss_of_the_rest, side_effects
from expunge.judging.outputs import Judged, hits, masked, most_known, percent
from expunge.records import Outcome, OutcomeReport

__all__ = ["absent_again", "judge_absent"]


def judge_absent(case: Judged) -> OutcomeReport:
    """Judge a class request: is the class gone, and did what stays survive?

    What stays is compared with the original *with the forgotten outputs masked*, since taking a
    class away lifts its neighbours.
    """
    before, after, limits, gone = case.before, case.after, case.limits, case.gone
    forget_labels, judge_labels = case.labels, case.judge_labels
    figures: dict[str, float] = {
        "forget_before": percent(hits(before.forget, forget_labels)),
        "forget_after": percent(hits(after.forget, forget_labels)),
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
            figures["judge_class_after"] = percent(hits(after.judge[of_class], own))
            unseen = most_known(after.judge[of_class], own)
            if not still_known and unseen > limits.forget_accuracy:
                left, still_known, where = unseen, True, "judge rows of the class"
    wrecked: str | None = None
    if rest is not None and before.judge is not None and after.judge is not None:
        if int(rest.sum()) >= limits.least_rows and judge_labels is not None:
            old, new = masked(before.judge[rest], gone), after.judge[rest]
            beyond = side_effects(old, new, gone, limits, figures)
            wrecked = loss_of_the_rest(old, new, judge_labels[rest], limits, figures) or beyond
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


def absent_again(case: Judged) -> OutcomeReport:
    """Judge an earlier class request after a later one: are its records recognised again?"""
    left = most_known(case.after.forget, case.labels)
    limit = case.limits.forget_accuracy
    return OutcomeReport(
        outcome=Outcome.INEFFECTIVE if left > limit else Outcome.DONE,
        reason=f"{left:.2f} % recognised again (limit: {limit:g} %)",
    )
