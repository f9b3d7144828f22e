"""Judge a record request by membership: are its records like rows that the model never saw?

`done` needs the whole interval of the signal within a share of the original's; a whole interval
beyond it is `ineffective`; between them the data cannot tell, and the outcome says how many
records, rows or references would. The shape of the margins, and changed copies of the rows, can
only reject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from expunge.functional.membership import class_matched_auc, margins, movement, null_half_width
from expunge.judging.damage import loss_of_the_rest, side_effects
from expunge.judging.enough import would_settle
from expunge.judging.outputs import Judged, Sight, hits, percent
from expunge.judging.shape import shape_of
from expunge.judging.signal import ENOUGH, Labels, Signal, signal_of
from expunge.reasons import Reason
from expunge.records import Limits, Outcome, OutcomeReport

__all__ = ["Told", "judge_unseen", "told_by", "told_from", "zone_of"]


STRICT = 0.99
"""Confidence with which rows are called not comparable."""

BEYOND_CHANCE = 0.995
"""Confidence that chance is ruled out with, before records are called still known."""


@final
@dataclass(frozen=True, slots=True)
class Told:
    """What one way to look at the rows tells: the signal before and after, and the limit to it.

    `chance` is how far an AUC falls from ½ with so few rows where nothing tells them apart, at
    99.5 %: a signal that is not beyond it rejects nothing, against references too.
    """

    before: Signal
    after: Signal
    limit: float
    chance: float

    @property
    def inside(self) -> bool:
        """Whether there was a signal, and hardly any is left."""
        return self.before.clear and self.after.inside(self.limit)

    @property
    def beyond(self) -> bool:
        """Whether too much of it is left, or there is one now that was not."""
        return any(
            side.beyond(self.limit) and abs(side.offset) > self.chance for side in self.after.sides
        )


def told_by(sight: Sight, labels: Labels, limits: Limits) -> Told:
    """The signal before and after, and what may be left of it."""
    references = sight.references
    before, after = (
        signal_of(copies, labels, references, limits.confidence)
        for copies in (sight.before, sight.after)
    )
    return told_from(before, after, labels, limits)


def told_from(before: Signal, after: Signal, labels: Labels, limits: Limits) -> Told:
    """The two signals with what may be left: a share of the first, where it is clear of chance."""
    limit = limits.signal_left * before.value if before.clear else limits.signal_new
    chance = null_half_width(labels.forget, labels.judge, confidence=BEYOND_CHANCE)
    return Told(before, after, limit, chance)


def zone_of(told: Told, *, unlike: bool) -> Outcome:
    """`done`, `ineffective` or `undetermined`, by the signal and the shape of the stored rows."""
    if told.beyond or unlike:
        return Outcome.INEFFECTIVE
    return Outcome.DONE if told.inside else Outcome.UNDETERMINED


def judge_unseen(case: Judged) -> OutcomeReport:
    """Judge a record request; see `docs/audit.md` for the rule and its order."""
    figures: dict[str, float] = {
        "forget_before": percent(hits(case.before.forget, case.labels)),
        "forget_after": percent(hits(case.after.forget, case.labels)),
    }
    if case.judge_labels is None or case.before.judge is None or case.after.judge is None:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_HOLDOUT).given(figures)
    used = int(torch.isin(case.labels, case.judge_labels).sum())
    figures["records_not_compared"] = float(len(case.labels) - used)
    if not used:
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NO_ROW_OF_RECORDS).given(figures)
    labels = Labels(case.labels, case.judge_labels)
    told = told_by(_stored(case), labels, case.limits)
    _note(told, case, labels, figures)
    damage = _damage(case, figures)
    strange = _not_comparable(case, labels, figures)
    first = damage is not None and (
        damage.outcome is Outcome.WRECKED or damage.why is Reason.FEW_ROWS_STAY
    )
    found = (
        (damage if first else None)
        or _rejected(case, told, labels, figures, judged=strange is None)
        or damage
        or strange
        or _open(case, told, labels)
        or _done(case, told, figures)
    )
    return found.given(figures)


def _stored(case: Judged) -> Sight:
    """The rows as they are stored."""
    references = tuple((outputs,) for outputs in case.references)
    return Sight(before=(case.before,), after=(case.after,), references=references)


def _note(told: Told, case: Judged, labels: Labels, figures: dict[str, float]) -> None:
    """Keep what the stored rows tell."""
    for when, signal in (("before", told.before), ("after", told.after)):
        for name, side in (("loss", signal.loss), ("margin", signal.margin)):
            figures[f"{name}_auc_{when}"] = side.auc.value
            figures[f"{name}_auc_{when}_low"] = max(side.auc.low, 0.0)
            figures[f"{name}_auc_{when}_high"] = min(side.auc.high, 1.0)
        figures[f"signal_{when}"] = signal.value
    figures["signal_limit"] = told.limit
    confidence = case.limits.confidence
    figures["smallest_visible_excess"] = null_half_width(
        labels.forget, labels.judge, confidence=confidence
    )
    assert case.before.judge is not None
    assert case.after.judge is not None
    moved = movement(case.before.forget, case.after.forget)
    others = movement(case.before.judge, case.after.judge)
    figures["before_after_auc"] = class_matched_auc(moved, labels.forget, others, labels.judge)[0]
    figures["references"] = float(len(case.references))


def _damage(case: Judged, figures: dict[str, float]) -> OutcomeReport | None:
    """What became of the judge rows of classes that stay."""
    assert case.judge_labels is not None
    assert case.before.judge is not None
    assert case.after.judge is not None
    limits = case.limits
    kept = ~torch.isin(case.judge_labels, torch.tensor(sorted(case.gone), dtype=torch.int64))
    if int(kept.sum()) < limits.least_rows:
        facts = {"least": limits.least_rows}
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.FEW_ROWS_STAY, **facts)
    old, new = case.before.judge[kept], case.after.judge[kept]
    others = [z.judge[kept] for z in case.references if z.judge is not None]
    beyond = side_effects(old, new, frozenset(), limits, figures)
    lost = loss_of_the_rest(old, new, case.judge_labels[kept], limits, figures, others)
    if lost is not None and _is_retrainings_own(case, lost):
        lost = OutcomeReport.of(Outcome.UNDETERMINED, Reason.TRAINED_ANEW, measured=lost.reason)
    return lost if lost is not None and lost.outcome is Outcome.WRECKED else beyond or lost


def _is_retrainings_own(case: Judged, lost: OutcomeReport) -> bool:
    """Whether a loss is one that retraining on fewer records makes by itself."""
    alone = case.beside.trained_anew and len(case.references) < ENOUGH
    return alone and lost.outcome is Outcome.WRECKED and lost.why is not Reason.HALF_LOST


def _not_comparable(
    case: Judged, labels: Labels, figures: dict[str, float]
) -> OutcomeReport | None:
    """Whether records and judge rows differ otherwise than by having been trained on."""
    what = None
    beside = case.beside
    if beside.retained is not None and beside.retained_labels is not None:
        own, other = (
            margins(case.before.forget, labels.forget),
            margins(beside.retained, beside.retained_labels),
        )
        found = class_matched_auc(own, labels.forget, other, beside.retained_labels)
        if found.used:
            figures["retained_auc"] = found.value
            band = null_half_width(labels.forget, beside.retained_labels, confidence=STRICT)
            if abs(found.value - 0.5) > band:
                harder = "harder" if found.value < 0.5 else "easier"
                what = (
                    f"they are {harder} than rows that stay in training (AUC {found.value:.3f}; "
                    f"chance: 0.5 ± {band:.3f})"
                )
    for outputs in case.references:
        assert outputs.judge is not None
        found = class_matched_auc(
            margins(outputs.forget, labels.forget),
            labels.forget,
            margins(outputs.judge, labels.judge),
            labels.judge,
            confidence=STRICT,
        )
        farthest = figures.get("references_auc", 0.5)
        if abs(found.value - 0.5) >= abs(farthest - 0.5):
            figures["references_auc"] = found.value
        if what is None and not found.low <= 0.5 <= found.high:
            what = f"a retrained model tells them apart too (AUC {found.value:.3f})"
    if what is None or len(case.references) >= ENOUGH:
        return None
    return OutcomeReport.of(Outcome.UNDETERMINED, Reason.NOT_COMPARABLE, what=what)


def _rejected(
    case: Judged, told: Told, labels: Labels, figures: dict[str, float], *, judged: bool
) -> OutcomeReport | None:
    """Whether records are still told apart; figures are kept whether it is `judged` or not."""
    shape = shape_of((case.after,), labels)
    figures.update(shape_auc_after=shape.auc, shape_ks_p=shape.p)
    copies = {name: told_by(s, labels, case.limits) for name, s in case.beside.copies.items()}
    for name, other in copies.items():
        figures[f"{name}_signal_before"] = other.before.value
        figures[f"{name}_signal_after"] = other.after.value
        figures[f"{name}_signal_limit"] = other.limit
    if not judged:
        return None
    if told.beyond:
        why = Reason.SIGNAL_LEFT if told.before.clear else Reason.NEW_SIGNAL
        return OutcomeReport.of(Outcome.INEFFECTIVE, why, **_facts(case, told))
    others = (shape_of((outputs,), labels) for outputs in case.references)
    if shape.rejects(others if len(case.references) >= ENOUGH else ()):
        facts = {"auc": shape.auc, "band": shape.band, "p": shape.p}
        return OutcomeReport.of(Outcome.INEFFECTIVE, Reason.UNLIKE_UNSEEN, **facts)
    for name, other in copies.items():
        if other.beyond and case.beside.reach == "model":
            return OutcomeReport.of(
                Outcome.INEFFECTIVE,
                Reason.COPIES_TELL,
                which=COPIES[name],
                new=other.after.value,
                old=other.before.value,
                limit=other.limit,
                stored=told.after.value,
            )
    return None


COPIES = {"noise": "noisy copies", "views": "the views named"}
"""What the copies of rows are called."""


def _open(case: Judged, told: Told, labels: Labels) -> OutcomeReport | None:
    """Whether the data cannot tell, and what would settle it."""
    if told.inside:
        return None
    known = told.before.clear
    side = told.after.widest if known else told.before.widest
    limit = told.limit if known else 0.0  # a signal before is clear where it excludes none
    settle = would_settle(side, limit, labels, len(case.references), case.limits.confidence)
    why = Reason.SIGNAL_OPEN if known else Reason.NO_SIGNAL_BEFORE
    facts = _facts(case, told) | {"low": side.low, "high": side.high, "settle": settle}
    return OutcomeReport.of(Outcome.UNDETERMINED, why, **facts)


def _done(case: Judged, told: Told, figures: dict[str, float]) -> OutcomeReport:
    """Nothing is left to say against it."""
    if case.beside.reach == "model":
        return OutcomeReport.of(Outcome.DONE, Reason.LIKE_UNSEEN, **_facts(case, told))
    left = [f"{COPIES[name]}: {figures[f'{name}_signal_after']:.3f}" for name in case.beside.copies]
    copies = f" ({', '.join(left)})" if left else ""
    facts = _facts(case, told) | {"copies": copies}
    return OutcomeReport.of(Outcome.DONE, Reason.LIKE_UNSEEN_ROWS, **facts)


def _facts(case: Judged, told: Told) -> dict[str, Any]:
    """The signal in numbers, with the interval of the side that is farther away."""
    side, count = told.after.widest, len(case.references)
    return {
        "old": told.before.value,
        "new": told.after.value,
        "low": side.low,
        "high": side.high,
        "limit": told.limit,
        "against": f" (against {count} retrained models)" if count >= ENOUGH else "",
    }
