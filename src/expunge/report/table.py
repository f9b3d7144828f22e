"""The audit as a table of texts: one row a subject, one column a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from expunge.records import Measurement, NotMeasured

__all__ = ["Audited", "audit_rows"]


class Audited(Protocol):
    """What the table needs of an audit report."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the models measured."""
        ...

    @property
    def references(self) -> tuple[str, ...]:
        """Those that are retrained models."""
        ...

    @property
    def measurements(self) -> tuple[Measurement | NotMeasured, ...]:
        """All figures, measured or not."""
        ...


_COLUMNS = (
    ("forget train %", "accuracy", "forget-train", 2),
    ("forget test %", "accuracy", "forget-test", 2),
    ("others %", "accuracy", "others", 2),
    ("worst class %", "worst_class", "others", 1),
    ("JS bits", "js_to_retrained", "forget-test", 3),
    ("agree %", "agreement_with_retrained", "forget-test", 1),
)


def audit_rows(report: Audited) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: each subject, then the retrained models as mean ± half their range.

    A figure that was not measured shows as "–".
    """
    found = {
        (m.subject, m.name, m.rows): m.value
        for m in report.measurements
        if isinstance(m, Measurement)
    }
    heading = ["model", *(title for title, _, _, _ in _COLUMNS)]
    rows = []
    for subject in (s for s in report.subjects if s not in report.references):
        cells = [_one(found.get((subject, name, part)), d) for _, name, part, d in _COLUMNS]
        rows.append([subject, *cells])
    if report.references:
        cells = []
        for _, name, part, digits in _COLUMNS:
            together = found.get(("retrained", name, part))
            values = [found[(r, name, part)] for r in report.references if (r, name, part) in found]
            cells.append(_one(together, digits) if together is not None else _many(values, digits))
        rows.append([f"retrained ×{len(report.references)}", *cells])
    return heading, rows


def _one(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _many(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    middle = sum(values) / len(values)
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    half = (max(values) - min(values)) / 2
    return f"{middle:.{digits}f} ± {half:.{digits}f}"
