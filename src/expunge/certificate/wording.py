"""The claim of a certificate in one plain sentence: a function of its other fields alone."""

from __future__ import annotations

from expunge.certificate.statement import Statement

__all__ = ["sentence_of"]

_CLAIMS = {
    "unseen": "every output lies within the stated bound of its committed target",
    "mispredict": "another class than its label wins by at least the stated margin",
    "margin": "the margin of its label lies within the stated bound of its committed target's",
}


def sentence_of(statement: Statement) -> str:
    """The claim in one plain sentence; the checker compares it word for word."""
    if statement.form == "narrow":
        which = ", ".join(str(k) for k in statement.removed)
        these = "this class" if len(statement.removed) == 1 else "these classes"
        return (
            f"For every possible input the model cannot answer class {which}: the output rows of "
            f"{these} are not in the file."
        )
    records = statement.records
    start = "its features" if statement.model.starts_at == "features" else "its input"
    parts = [
        f"for {sum(r.claim == claim for r in records):,} {words}"
        for claim, words in _CLAIMS.items()
        if any(r.claim == claim for r in records)
    ]
    parts = parts or ["no claim is made"]
    if statement.form == "gated":
        parts.append(
            f"and on each of {statement.retained.count:,} retained rows every gate is shut, so "
            "that its outputs are exactly those of the base weights"
        )
    return f"Of {len(records):,} forgotten records, each given {start}: {'; '.join(parts)}."
