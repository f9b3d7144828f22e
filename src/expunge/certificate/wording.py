"""The claim of a certificate in one plain sentence: a function of its other fields alone.

Beside it, and no part of the format, what the checker says of how far such a claim reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from expunge.certificate.canonical import real
from expunge.certificate.statement import Statement

__all__ = ["STORED_ROWS", "reach_of", "sentence_of"]

STORED_ROWS = "This holds for the stored rows; changed copies are not covered."
"""How far a claim about records reaches."""

_CLAIMS = {
    "unseen": "every output lies within {bound} of its committed target",
    "mispredict": "another class than its label wins by at least {bound}",
    "margin": "the margin of its label lies within {bound} of its committed target's",
}


def reach_of(statement: Statement) -> str | None:
    """How far a claim about records reaches; None for a removed class, which is for every input."""
    return None if statement.form == "narrow" else STORED_ROWS


def sentence_of(statement: Statement) -> str:
    """The claim in one plain sentence; the checker compares it word for word."""
    if statement.form == "narrow":
        which = ", ".join(str(k) for k in statement.removed)
        these = "this class" if len(statement.removed) == 1 else "these classes"
        return (
            f"For every possible input the model cannot answer class {which}: the output rows of "
            f"{these} are not in the file."
        )
    total = len(statement.records) + sum(count for count, _ in _without_claim(statement))
    start = "its features" if statement.model.starts_at == "features" else "its input"
    parts = [*_claims(statement)]
    parts += [f"for {n:,} nothing is claimed, {why}" for n, why in _without_claim(statement) if n]
    if statement.form == "gated":
        parts.append(
            f"and on each of {statement.retained.count:,} retained rows every gate is shut, so "
            "that its outputs are exactly those of the base weights"
        )
    return f"Of {total:,} forgotten records, each given {start}: {'; '.join(parts)}."


def _claims(statement: Statement) -> Iterator[str]:
    """How many records have which claim, within the weakest of their bounds."""
    for claim, words in _CLAIMS.items():
        bounds = [real(r.bound) for r in statement.records if r.claim == claim]
        if bounds and claim == "mispredict":
            yield f"for {len(bounds):,} {words.format(bound=_text(min(bounds), ROUND_FLOOR))}"
        elif bounds:
            yield f"for {len(bounds):,} {words.format(bound=_text(max(bounds), ROUND_CEILING))}"


def _without_claim(statement: Statement) -> list[tuple[int, str]]:
    """How many records have no claim, and why."""
    left = statement.entangled.records
    shown = sum(r.reason != "rounding" for r in left)
    return [
        (shown, "since they are means of retained rows"),
        (
            len(left) - shown,
            "since no gate holds beyond rounding, which is stated and not shown",
        ),
        (statement.not_merged, "since they did not fit"),
        (statement.earlier_without_claim, "as in the earlier certificates"),
    ]


def _text(value: float, rounding: str) -> str:
    """Three significant digits, rounded to the side that claims less."""
    return f"{Context(prec=3, rounding=rounding).create_decimal_from_float(value).normalize():g}"
