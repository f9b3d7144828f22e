"""The audit as a table of texts: one row a subject, one column a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from expunge.records import (
    NOT_MEASURED,
    Limits,
    Measurement,
    NotMeasured,
    RunRecord,
    Standing,
)

__all__ = [
    "Audited",
    "audit_rows",
    "claims_in_words",
    "detail_rows",
    "limits_line",
    "side_effect_rows",
    "standing_rows",
]


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
    def standing(self) -> tuple[Standing, ...]:
        """What shows of each of these that it is one."""
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


_OF_RECORDS = (
    ("forget records %", "accuracy", "forget-train", 2),
    ("judge, same classes %", "accuracy", "forget-test", 2),
    ("judge %", "accuracy", "others", 2),
    ("retained %", "accuracy", "retained", 2),
    ("loss AUC", "loss_auc", "forget-train", 3),
    ("margin AUC", "margin_auc", "forget-train", 3),
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
    columns = _OF_RECORDS if any(m.rows == "retained" for m in report.measurements) else _COLUMNS
    heading = ["model", *(title for title, _, _, _ in columns)]
    rows = []
    for subject in (s for s in report.subjects if s not in report.references):
        cells = [_one(found.get((subject, name, part)), d) for _, name, part, d in columns]
        rows.append([subject, *cells])
    if report.references:
        cells = []
        for _, name, part, digits in columns:
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


_MOST_CLASSES = 20
_SHOWN_UNITS = ("%", "points", "bits")


def detail_rows(report: Audited) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for the edited model: one row a figure, with its interval and its gap.

    `before` is the original's value, `gap` the distance to the mean of the retrained models and
    `spread` their own range. With more than 20 classes the 20 that changed most are shown. What
    was not measured is listed with its reason instead of a value.
    """
    found = {
        (m.subject, m.name, m.rows): m for m in report.measurements if isinstance(m, Measurement)
    }
    heading = ["figure", "rows", "after", "95 % interval", "before", "gap", "spread"]
    rows = []
    for m in _without_most_classes(report, found):
        if isinstance(m, NotMeasured):
            rows.append([_words(m.name), m.rows, f"not measured: {m.reason}", "", "", "", ""])
            continue
        before = found.get(("before", m.name, m.rows))
        gap = spread = None
        if m.name == "accuracy":
            gap = found.get(("after", "gap_to_retrained", m.rows))
            spread = found.get(("retrained", "spread_of_retrained", m.rows))
        elif m.name.endswith("_retrained"):
            spread = found.get(("retrained", m.name, m.rows))
        digits = 3 if m.unit in ("bits", "") or m.name.endswith("auc") else 2
        interval = "" if m.interval is None else " to ".join(f"{v:.{digits}f}" for v in m.interval)
        rows.append(
            [
                _words(m.name),
                m.rows,
                f"{m.value:.{digits}f} {m.unit if m.unit in _SHOWN_UNITS else ''}".strip(),
                interval,
                _one(None if before is None else before.value, digits),
                "–" if gap is None else f"{round(gap.value, digits) + 0.0:+.{digits}f}",
                _one(None if spread is None else spread.value, digits),
            ]
        )
    return heading, rows


def _words(name: str) -> str:
    return name.replace("_", " ").replace(" auc", " AUC").replace("js ", "JS ")


def _without_most_classes(
    report: Audited, found: dict[tuple[str, str, str], Measurement]
) -> list[Measurement | NotMeasured]:
    """The figures of the edited model, gaps aside, with the 20 classes that changed most."""
    own = [m for m in report.measurements if m.subject == "after" and m.name != "gap_to_retrained"]
    classes = [m for m in own if isinstance(m, Measurement) and m.name.startswith("class_")]

    def change(m: Measurement) -> float:
        before = found.get(("before", m.name, m.rows))
        return 0.0 if before is None else abs(m.value - before.value)

    shown = sorted(classes, key=change, reverse=True)[:_MOST_CLASSES]
    return [m for m in own if not m.name.startswith("class_") or m in shown]


def standing_rows(report: Audited) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: of each reference what shows that it was trained on its own, and level.

    A column that nothing was measured for is left out.
    """
    columns: list[tuple[str, list[str]]] = [
        ("cosine to the original", [_one(s.weights_cosine, 2) for s in report.standing]),
        ("from the initial weights", [_one(s.steps_cosine, 2) for s in report.standing]),
        ("agree on what stays %", [_one(s.agreement, 1) for s in report.standing]),
        ("AUC forget to retained", [_with_interval(s) for s in report.standing]),
        ("level", [s.level for s in report.standing]),
    ]
    shown = [(title, cells) for title, cells in columns if set(cells) - {"–"}]
    heading = ["reference", *(title for title, _ in shown)]
    rows = [
        [one.reference, *(cells[i] for _, cells in shown)] for i, one in enumerate(report.standing)
    ]
    return heading, rows


def _with_interval(one: Standing) -> str:
    if one.seen_auc is None or one.seen_interval is None:
        return "–"
    low, high = one.seen_interval
    return f"{one.seen_auc:.2f} ({low:.2f} to {high:.2f})"


def side_effect_rows(
    figures: Mapping[str, float], limits: Limits
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: how many judge rows that stay moved or changed their class, and limits."""
    shown = (
        ("got other logits", "others_moved", limits.most_moved),
        ("changed class", "others_flipped", limits.most_flipped),
    )
    rows = [
        [words, f"{figures[name]:.2f} %", "–" if limit == 100 else f"{limit:g} %"]
        for words, name, limit in shown
        if name in figures
    ]
    return ["side effects on judge rows", "share", "limit"], rows


def limits_line(limits: Limits) -> str:
    """What stands beside an outcome: limits that are not the defaults; "" where all are."""
    usual = Limits()
    others = [
        f"{f.name} {getattr(limits, f.name):g} instead of {getattr(usual, f.name):g}"
        for f in dataclasses.fields(Limits)
        if getattr(limits, f.name) != getattr(usual, f.name)
    ]
    return f" (limits: {', '.join(others)})" if others else ""


def claims_in_words(record: RunRecord) -> str:
    """What the method can support at most, and what was found: "at most outputs; not measured"."""
    verdicts = record.verdicts
    words = ", ".join(f"{claim} {verdict}" for claim, verdict in verdicts.items())
    judged = any(verdict != NOT_MEASURED for verdict in verdicts.values())
    return f"at most {', '.join(record.ceiling)}; {words if judged else NOT_MEASURED}"
