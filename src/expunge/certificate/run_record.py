"""What the record of the run says beside a certificate: its outcome, which nobody signed.

It is told, and is no claim. Words are the checker's own, never a text from the record.
"""

from __future__ import annotations

from pathlib import Path

from expunge.certificate.bundle import read_file
from expunge.errors import InputError
from expunge.records import read_record

__all__ = ["UNREADABLE", "outcome_beside", "outcome_in_words"]

UNREADABLE = "unreadable"
"""Stands for the outcome in a record that cannot be read."""

_ACCEPTED = {
    "done": "what was measured lies within the limits",
    "incomplete": "nothing was done for some records of the request",
    "undetermined": "the data could not tell whether the limits were met",
}


def outcome_beside(folder: Path) -> str | None:
    """The outcome in `record.json` of this folder; None without one."""
    try:
        content = read_file(folder / "record.json")
        return None if content is None else read_record(content.decode()).outcome.outcome.value
    except (InputError, UnicodeDecodeError):
        return UNREADABLE


def outcome_in_words(outcome: str) -> str:
    """One sentence: what the run ended as, and that it is no claim of the certificate."""
    if outcome == UNREADABLE:
        return "The record.json beside it cannot be read: how the run ended is not known."
    if outcome not in _ACCEPTED:
        return (
            f"The record.json beside it says {outcome}, for which no certificate is written: one "
            "of the two is of another run, or was edited."
        )
    said = f"The run ended {outcome} by its record.json: {_ACCEPTED[outcome]}"
    return f"{said}. That is not signed, and no claim of the certificate."
