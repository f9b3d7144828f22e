"""Accuracy: what is still recognised, what stays, the worst class, and the gap to retraining.

Equation: hits / rows in percent, with the exact interval of Clopper and Pearson (1934). The gap to
retraining is the difference from the mean of the retrained models; it means something only beside
their own spread, the largest distance between two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch

from expunge.audits.base import Audit, AuditInfo, Case, Part, RowSet, correct, percent
from expunge.functional.intervals import clopper_pearson
from expunge.records import Measurement, NotMeasured

__all__ = ["Accuracy"]

_PARTS: tuple[Part, ...] = ("forget-train", "forget-test", "others")
_OF_RECORDS: tuple[Part, ...] = ("retained", "retained-same")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy(Audit):
    """Top-1 accuracy of every subject on every part, per class, and gaps to retrained models."""

    info: ClassVar[AuditInfo] = AuditInfo(
        name="accuracy",
        question="How much of the forget set is still recognised, and what became of the rest?",
        source="C. Clopper, E. Pearson, Biometrika 1934 (intervals)",
    )

    def measure(self, case: Case) -> Sequence[Measurement | NotMeasured]:
        """Measure every subject on every part."""
        out: list[Measurement | NotMeasured] = []
        for part in _PARTS if case.scope == "classes" else _PARTS + _OF_RECORDS:
            rows = case.part(part)
            out += [_accuracy(case, rows, part, subject) for subject in case.subjects]
            out += _gaps(case, rows, part)
        rows = case.part("others")
        for subject in case.subjects:
            out += _by_class(case, rows, subject)
        return out


def _direction(case: Case, part: Part) -> Literal["lower", "higher", "nearest"]:
    if part in ("others", *_OF_RECORDS):
        return "higher"
    return "lower" if case.aim == "absent" else "nearest"


def _missing(name: str, subject: str, rows: str) -> NotMeasured:
    return NotMeasured(
        audit="accuracy", name=name, subject=subject, rows=rows, reason="there are no such rows"
    )


def _accuracy(
    case: Case, rows: RowSet | None, part: Part, subject: str
) -> Measurement | NotMeasured:
    if rows is None:
        return _missing("accuracy", subject, part)
    hits = correct(rows, subject)
    n = len(hits)
    low, high = clopper_pearson(int(hits.sum()), n)
    return Measurement(
        audit="accuracy",
        name="accuracy",
        subject=subject,
        rows=part,
        value=percent(hits),
        n=n,
        unit="%",
        direction=_direction(case, part),
        level="C4",
        interval=(100 * low, 100 * high),
    )


def _gaps(case: Case, rows: RowSet | None, part: Part) -> list[Measurement | NotMeasured]:
    if rows is None:
        gap = _missing("gap_to_retrained", "after", part)
        return [gap, _missing("spread_of_retrained", "retrained", part)]
    if not case.references:
        reason = "no retrained model was given"
        gap = NotMeasured(
            audit="accuracy", name="gap_to_retrained", subject="after", rows=part, reason=reason
        )
        return [gap, _no_spread(part, reason)]
    values = [percent(correct(rows, name)) for name in case.references]
    mean = sum(values) / len(values)
    out: list[Measurement | NotMeasured] = [
        Measurement(
            audit="accuracy",
            name="gap_to_retrained",
            subject=subject,
            rows=part,
            value=percent(correct(rows, subject)) - mean,
            n=len(rows.labels),
            unit="points",
            direction="nearest",
            level=case.level(),
        )
        for subject in case.subjects
        if subject not in case.references
    ]
    if len(values) < 2:
        reason = "a single retrained model has no spread; give three or more"
        return [*out, _no_spread(part, reason)]
    spread = Measurement(
        audit="accuracy",
        name="spread_of_retrained",
        subject="retrained",
        rows=part,
        value=max(values) - min(values),
        n=len(values),
        unit="points",
        direction="none",
        level=case.level(),
    )
    return [*out, spread]


def _no_spread(part: Part, reason: str) -> NotMeasured:
    return NotMeasured(
        audit="accuracy",
        name="spread_of_retrained",
        subject="retrained",
        rows=part,
        reason=reason,
    )


def _by_class(case: Case, rows: RowSet | None, subject: str) -> list[Measurement | NotMeasured]:
    if rows is None:
        return [_missing("worst_class", subject, "others")]
    out: list[Measurement | NotMeasured] = []
    hits = correct(rows, subject)
    for label in rows.labels.unique().tolist():
        own = hits[torch.eq(rows.labels, label)]
        low, high = clopper_pearson(int(own.sum()), len(own))
        out.append(
            Measurement(
                audit="accuracy",
                name=f"class_{label}",
                subject=subject,
                rows="others",
                value=percent(own),
                n=len(own),
                unit="%",
                direction="higher",
                level="C4",
                interval=(100 * low, 100 * high),
            )
        )
    worst = min((m for m in out if isinstance(m, Measurement)), key=lambda m: m.value)
    return [
        *out,
        Measurement(
            audit="accuracy",
            name="worst_class",
            subject=subject,
            rows="others",
            value=worst.value,
            n=worst.n,
            unit="%",
            direction="higher",
            level="C4",
            interval=worst.interval,
        ),
    ]
