"""Judge a class request: is the class gone, and did what stays survive?"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from expunge.functional.intervals import rows_for_bound, upper_bound
from expunge.judging.damage import loss_of_the_rest, side_effects
from expunge.judging.known import (
    chance_of,
    near_chance_before,
    not_known_before,
    unknown_labels,
)
from expunge.judging.outputs import Judged, hits, masked, most_known, percent
from expunge.reasons import Reason
from expunge.records import Outcome, OutcomeReport

__all__ = ["absent_again", "judge_absent"]


def judge_absent(case: Judged) -> OutcomeReport:
    """Judge a class request: is the class gone, and did what stays survive?

    What stays is compared with the original *with the forgotten outputs masked*, since taking a
    class away lifts its neighbours. Nothing can be said where what stays was near chance before,
    nor of a class that was not recognised, unless less than half of what stays is left; where other
    classes of the request were, these and damage outrank it.
    `done` needs at most `forget_accuracy` percent recognised, and for each class a one-sided upper
    bound of at most `class_bound` on its judge rows.
    """
    figures: dict[str, float] = {
        "forget_before": percent(hits(case.before.forget, case.labels)),
        "forget_after": percent(hits(case.after.forget, case.labels)),
    }
    damage = _of_the_rest(case, figures)
    wrecked = damage if damage is not None and damage.outcome is Outcome.WRECKED else None
    right = hits(case.before.forget, case.labels)
    unknown = not_known_before(right, case.labels, case.limits)
    near = None
    if "chance" in figures:
        near = near_chance_before(figures["others_before"], figures["chance"])
    half = damage if damage is not None and damage.why is Reason.HALF_LOST else None
    none_known = len(unknown) == len(case.labels.unique())
    found = (
        (next(iter(unknown), near) if near is not None else None)
        or half
        or (unknown[0] if none_known else None)
        or wrecked
        or _still_known(case, unknown_labels(right, case.labels, case.limits), figures)
        or next(iter(unknown), None)
        or damage
        or _not_excluded(case, figures)
    )
    if found is None:
        known = {"left": figures["forget_after"], "change": figures["others_change"]}
        found = OutcomeReport.of(Outcome.DONE, Reason.CLASS_GONE, **known)
    return found.given(figures)


def _rows(case: Judged) -> tuple[Bool[Tensor, " judge"], Tensor] | None:
    """Which judge rows are of classes that are gone, and the labels of all; None without any."""
    if case.judge_labels is None or case.before.judge is None or case.after.judge is None:
        return None
    return torch.isin(case.judge_labels, torch.tensor(sorted(case.gone))), case.judge_labels


def _of_the_rest(case: Judged, figures: dict[str, float]) -> OutcomeReport | None:
    """What became of the judge rows of classes that stay."""
    found = _rows(case)
    if found is None:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_HOLDOUT)
    of_class, labels = found
    rest, limits = ~of_class, case.limits
    if int(rest.sum()) < limits.least_rows:
        facts = {"least": limits.least_rows}
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.FEW_ROWS_STAY, **facts)
    assert case.before.judge is not None
    assert case.after.judge is not None
    old, new = masked(case.before.judge[rest], case.gone), case.after.judge[rest]
    figures["chance"] = chance_of(old)
    beyond = side_effects(old, new, case.gone, limits, figures)
    others = [z.judge[rest] for z in case.references if z.judge is not None]
    lost = loss_of_the_rest(old, new, labels[rest], limits, figures, others)
    return lost if lost is not None and lost.outcome is Outcome.WRECKED else beyond or lost


def _still_known(
    case: Judged, unknown: frozenset[int], figures: dict[str, float]
) -> OutcomeReport | None:
    """Whether the forget records, or judge rows of a class, are still given a class once known."""
    limit, found = case.limits.forget_accuracy, _rows(case)
    left, where = _most(case.after.forget, case.labels, unknown), "forget records"
    if found is not None and bool(found[0].any()):
        of_class, labels = found
        assert case.after.judge is not None
        answers, own = case.after.judge[of_class], labels[of_class]
        figures["judge_class_after"] = percent(hits(answers, own))
        unseen = _most(answers, own, unknown)
        if left <= limit < unseen:
            left, where = unseen, "judge rows of the class"
    if left <= limit:
        return None
    facts = {"left": left, "where": where, "limit": limit}
    return OutcomeReport.of(Outcome.INEFFECTIVE, Reason.STILL_KNOWN, **facts)


def _most(logits: Tensor, labels: Tensor, unknown: frozenset[int]) -> float:
    """Accuracy in percent on the class that is recognised best, of those that were known before."""
    known = ~torch.isin(labels, torch.tensor(sorted(unknown), dtype=torch.int64))
    return most_known(logits[known], labels[known]) if bool(known.any()) else 0.0


def _not_excluded(case: Judged, figures: dict[str, float]) -> OutcomeReport | None:
    """Whether the judge rows are too few to say that a class is gone for rows never seen."""
    assert case.after.judge is not None
    assert case.judge_labels is not None
    most, limits = 0.0, case.limits
    right = hits(case.after.judge, case.judge_labels)
    for label in case.labels.unique().tolist():
        own = right[case.judge_labels == label]
        if not len(own):
            return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_ROW_OF_CLASS, label=label)
        known = int(own.sum())
        bound = 100 * upper_bound(known, len(own), confidence=limits.confidence)
        most = max(most, bound)
        if bound > limits.class_bound:
            enough = rows_for_bound(known, limits.class_bound / 100, confidence=limits.confidence)
            figures["class_bound"] = bound
            return OutcomeReport.of(
                Outcome.UNDETERMINED,
                Reason.CLASS_NOT_EXCLUDED,
                known=known,
                rows=len(own),
                label=label,
                bound=bound,
                limit=limits.class_bound,
                enough=enough,
            )
    figures["class_bound"] = most
    return None


def absent_again(case: Judged) -> OutcomeReport:
    """Judge an earlier class request after a later one: are its records recognised again?"""
    left = most_known(case.after.forget, case.labels)
    limit = case.limits.forget_accuracy
    back = left > limit
    return OutcomeReport.of(
        Outcome.INEFFECTIVE if back else Outcome.DONE,
        Reason.KNOWN_AGAIN if back else Reason.STAYS_GONE,
        left=left,
        limit=limit,
    )
