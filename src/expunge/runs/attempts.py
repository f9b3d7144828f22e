"""Earlier attempts at one request: runs in the same folder, on the same model, for the same rows.

Whoever tries seeds or settings until one run is accepted has chosen it; the record says so. Only
runs whose private part can be read are compared, since the request itself is private.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.errors import ExpungeError
from expunge.records import RunRecord, read_record
from expunge.results.forgotten import Forgotten

__all__ = ["attempts_in_words", "earlier_attempts"]


def earlier_attempts(folder: Path, record: RunRecord, request: Forgotten) -> dict[str, int]:
    """How many runs in `folder` tried this request on this model, by "method outcome".

    A request is the same where the model before, the aim and the classes are, and, for records,
    the number asked for, with some record in common.
    """
    found: Counter[str] = Counter()
    for path in sorted(folder.glob("*/record.json")):
        other = _read(path)
        if other is not None and _same(other, record, _latest(path.parent), request):
            found[f"{other.method} {other.outcome.outcome.value}"] += 1
    return dict(sorted(found.items()))


def attempts_in_words(attempts: Mapping[str, int]) -> str:
    """The attempts as one line: "4 earlier attempts here: mu-mis ineffective 3, …"; "" for none."""
    if not attempts:
        return ""
    total = sum(attempts.values())
    listed = ", ".join(f"{name} {count}" for name, count in attempts.items())
    return f"{total} earlier attempt{'s' if total > 1 else ''} at this request here: {listed}"


def _read(path: Path) -> RunRecord | None:
    """The record of another run; None for what is no run of ours, or one that cannot be read."""
    try:
        return read_record(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError, ExpungeError):
        return None


def _latest(run: Path) -> Mapping[str, Any] | None:
    """The latest request in the private history of a run, where it may be read."""
    try:
        facts = json.loads((run / "private" / "history.json").read_text(encoding="utf-8"))
        return dict(facts["requests"][-1])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _same(
    other: RunRecord, record: RunRecord, theirs: Mapping[str, Any] | None, request: Forgotten
) -> bool:
    alike = (
        other.digest_before == record.digest_before
        and other.aim == record.aim
        and other.forget_count == record.forget_count
    )
    if not alike or theirs is None:
        return False
    if request.scope == "classes":
        return frozenset(theirs.get("classes", ())) == request.classes
    return not _ids(theirs).isdisjoint(request.ids)


def _ids(facts: Mapping[str, Any]) -> frozenset[str]:
    """The ids of a stored request."""
    return frozenset(str(i) for i in facts.get("ids", ()))
