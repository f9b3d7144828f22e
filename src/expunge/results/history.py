"""The private history of a run: what was forgotten so far, as stored in RUN/private."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.errors import InputError
from expunge.records import RunRecord
from expunge.results.forgotten import Forgotten, commitment
from expunge.results.unlearned import Unlearned

__all__ = ["history_text", "read_history"]


_HISTORY_VERSION = 1


def history_text(result: Unlearned, files: Mapping[str, str]) -> str:
    """Every request so far with ids, classes, labels and salts, and digests of the files named."""
    requests = [
        {
            "aim": request.aim,
            "scope": request.scope,
            "classes": sorted(request.classes),
            "ids": list(request.ids),
            "labels": None if request.labels is None else list(request.labels),
            "salt": request.salt,
            "commitment": commitment(request),
        }
        for request in result.forgotten
    ]
    facts = {
        "version": _HISTORY_VERSION,
        "split_seed": result.split_seed,
        "requests": requests,
        "files": dict(files),
    }
    return json.dumps(facts, ensure_ascii=False) + "\n"


def read_history(path: Path, record: RunRecord) -> tuple[tuple[Forgotten, ...], int | None]:
    """Every request so far, the latest last, and the seed of the split, None where it has none.

    No request where private/ is not there for this user.
    """
    file = path / "private" / "history.json"
    if not os.access(file, os.R_OK):
        return (), _public_split_seed(path, record)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["version"] != _HISTORY_VERSION:
            raise InputError(
                f"Expected {file} of version {_HISTORY_VERSION}, got {facts['version']!r}. A "
                "newer Expunge wrote it: update."
            )
        requests = tuple(
            Forgotten(
                aim=r["aim"],
                scope=r["scope"],
                classes=frozenset(int(c) for c in r["classes"]),
                ids=tuple(str(i) for i in r["ids"]),
                salt=str(r["salt"]),
                labels=_labels(r),
            )
            for r in facts["requests"]
        )
        split_seed = _seed(facts["split_seed"], record)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"Expected {file} to be the private history of the run, but reading it raised "
            f"{type(error).__name__}: {error}. It is damaged: take it from a copy."
        ) from error
    fits = len(requests) == record.earlier_requests + 1
    if not fits or commitment(requests[-1]) != record.commitment:
        raise InputError(
            f"Expected {file} to belong to the run, got the history of another (the commitments "
            "differ). Put the right private/ back."
        )
    return requests, split_seed


def _labels(request: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The label of each id; None where the run that wrote them had not seen the rows."""
    if request["labels"] is None:
        return None
    labels = tuple(int(label) for label in request["labels"])
    if len(labels) != len(request["ids"]):
        raise ValueError(f"{len(labels)} labels for {len(request['ids'])} ids")
    return labels


def _seed(value: Any, record: RunRecord) -> int | None:
    """The seed of the split; runs of record version 1 always have one."""
    return None if value is None and record.version > 1 else int(value)


def _public_split_seed(path: Path, record: RunRecord) -> int | None:
    try:
        facts = tomllib.loads((path / "job.toml").read_text(encoding="utf-8"))
        return _seed(
            facts["split_seed"] if record.version == 1 else facts.get("split_seed"), record
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        if record.earlier_requests == 0:
            return record.seed if record.version == 1 else None
        raise InputError(
            f"Expected `split_seed` in {path / 'job.toml'}, but reading it raised "
            f"{type(error).__name__}: {error}. Take the file from a copy."
        ) from error
