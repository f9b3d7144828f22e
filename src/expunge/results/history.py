"""The private history of a run: what was forgotten so far, as stored in RUN/private."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from expunge.errors import InputError
from expunge.records import RunRecord
from expunge.results.forgotten import Forgotten, commitment
from expunge.results.unlearned import Unlearned

__all__ = ["History", "history_text", "read_history"]


_HISTORY_VERSION = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """What RUN/private tells: every request so far, the latest last; empty where it is not there.

    `refused` says by id for which records of the latest request nothing was done. `digests` are
    SHA-256 of files of the folder, by name, as the run wrote them; empty in folders from before
    they were kept. `class_names` are what the class numbers stand for, where labels were names.
    """

    requests: tuple[Forgotten, ...]
    split_seed: int | None
    refused: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None


def history_text(result: Unlearned, files: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """Every request so far with ids, classes, labels and salts, and digests of the files named.

    `files` are those that the job names, `digests` those of the run folder itself.
    """
    requests = [
        {
            "aim": request.aim,
            "scope": request.scope,
            "classes": sorted(request.classes),
            "ids": list(request.ids),
            "labels": None if request.labels is None else list(request.labels),
            "salt": request.salt,
            "commitment": commitment(request),
            "joined": list(request.joined),
        }
        for request in result.forgotten
    ]
    facts = {
        "version": _HISTORY_VERSION,
        "split_seed": result.split_seed,
        "requests": requests,
        "files": dict(files),
        "refused": dict(result.refused),
        "record": digests.get("record.json"),
        **({} if result.class_names is None else {"class_names": list(result.class_names)}),
        "parts": {name: digest for name, digest in digests.items() if name != "record.json"},
    }
    return json.dumps(facts, ensure_ascii=False) + "\n"


def read_history(path: Path, record: RunRecord) -> History:
    """What RUN/private tells; no request where it is not there for this user."""
    file = path / "private" / "history.json"
    if not os.access(file, os.R_OK):
        return History(requests=(), split_seed=_public_split_seed(path, record))
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
                joined=tuple(str(i) for i in r.get("joined", ())),
            )
            for r in facts["requests"]
        )
        history = History(
            requests=requests,
            split_seed=_seed(facts["split_seed"], record),
            refused={str(k): str(v) for k, v in facts.get("refused", {}).items()},
            digests=_digests(facts),
            class_names=_names(facts.get("class_names")),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
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
    return history


def _names(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(str(name) for name in value)


def _digests(facts: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the folder's files, that of the record among them; none in an old history."""
    own = facts.get("record")
    parts = {str(name): str(digest) for name, digest in facts.get("parts", {}).items()}
    return parts if own is None else {"record.json": str(own), **parts}


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
