"""Canonical JSON (RFC 8785) without floats: one form of bytes for given facts.

Real numbers are texts in the form of `float.hex`, so that nobody rounds them on the way.
"""

from __future__ import annotations

import json
import math
from typing import Any

import rfc8785

from expunge.errors import InputError

__all__ = [
    "VERSION",
    "canonical",
    "checked_real",
    "parse_canonical",
    "real",
    "unique_pairs",
    "version_refusal",
]

VERSION = 1
"""The version of every format in this package."""


def canonical(facts: Any) -> bytes:
    """Write plain facts as canonical JSON."""
    return rfc8785.dumps(facts)


def parse_canonical(content: bytes, *, what: str) -> Any:
    """Read JSON that is canonical byte for byte and holds no floats.

    Raises InputError for duplicate keys, NaN, decimal numbers, or the same facts in other bytes.
    """
    try:
        facts = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=unique_pairs,
            parse_float=_no_floats,
            parse_constant=_no_floats,
        )
        written = rfc8785.dumps(facts)
    except (ValueError, RecursionError) as error:
        raise _not_canonical(what, str(error)) from error
    if written != content:
        raise _not_canonical(what, "the same facts are written in another way")
    return facts


def _no_floats(text: str) -> float:
    raise ValueError(f"{text} is a decimal number or NaN; numbers are hexadecimal texts here")


def _not_canonical(what: str, why: str) -> InputError:
    return InputError(
        f"Expected {what} in canonical JSON (RFC 8785), got bytes that are not: {why}. The file "
        "was changed or damaged: take it from its origin."
    )


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; raises ValueError where a key stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def checked_real(text: str) -> str:
    """Return `text` where it is the hexadecimal form of a finite number; raises ValueError."""
    try:
        fits = math.isfinite(float.fromhex(text)) and float.fromhex(text).hex() == text
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError("not the canonical hexadecimal form of a finite number")
    return text


def real(text: str) -> float:
    """The number that a checked text holds."""
    return float.fromhex(text)


def version_refusal(what: str, got: object) -> InputError:
    """The error for a format of another version."""
    return InputError(
        f"Expected {what} of version {VERSION}, got version {got!r}. A newer Expunge wrote it: "
        "update, and verify again."
    )
