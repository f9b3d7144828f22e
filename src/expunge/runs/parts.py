"""What in a run folder belongs together: files that were edited or exchanged are refused.

The private history holds digests of the other files as the run wrote them. Beyond, every file is
held against the record and the weights, so that it shows in a shared folder too.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from expunge.certificate import Evidence
from expunge.certificate.bundle import read_file
from expunge.certificate.envelope import CERTIFICATE, parse_envelope
from expunge.certificate.statement import Statement, parse_statement
from expunge.errors import InputError, StatisticsError
from expunge.network.heads import Head
from expunge.records import RunRecord
from expunge.results.forgotten import Forgotten, commitment
from expunge.results.history import History
from expunge.statistics.features import FeatureStatistics

__all__ = [
    "digests_in",
    "refuse_edited",
    "refuse_other_certificate",
    "refuse_other_evidence",
    "refuse_other_statistics",
]

_WRITTEN = (
    "record.json",
    "job.toml",
    "statistics.safetensors",
    "private/job.toml",
    "private/members.npy",
    "private/left.json",
    "private/twins.json",
    "private/witnesses.json",
)
"""Files that nothing else in a folder holds a digest of."""


def digests_in(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a run folder that nothing else in it holds a digest of."""
    return {name: _sha256(folder / name) for name in _WRITTEN if (folder / name).exists()}


def refuse_edited(path: Path, record: RunRecord, history: History) -> None:
    """Raise InputError where a file is not as the run wrote it, or job.toml is of another run."""
    for name, digest in history.digests.items():
        file = path / name
        if os.access(file, os.R_OK) and _sha256(file) != digest:
            raise InputError(
                f"Expected {file} as the run wrote it ({digest[:12]}), got another "
                f"({_sha256(file)[:12]}). It was edited or exchanged: take it from a copy."
            )
    _refuse_other_audits(path, record)
    file = path / "job.toml"
    if not file.exists():
        return
    try:
        job = tomllib.loads(file.read_text(encoding="utf-8"))
        found = {**job["forget"], "split_seed": job.get("split_seed")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"Expected {file} to be the job of the run, but reading it raised "
            f"{type(error).__name__}: {error}. It is damaged: take it from a copy."
        ) from error
    expected: dict[str, Any] = {
        "aim": record.aim,
        "scope": record.scope,
        "commitment": record.commitment,
    }
    if history.requests:
        expected["commitments_before"] = [commitment(r) for r in history.requests[:-1]]
        expected["split_seed"] = history.split_seed
    other = [key for key, value in expected.items() if found.get(key) != value]
    if other:
        raise InputError(
            f"Expected {file} to be the job of the run, got another {other[0]} than in the record. "
            "It was edited or exchanged: take it from a copy."
        )


def _refuse_other_audits(path: Path, record: RunRecord) -> None:
    """Raise InputError where an audit in the folder is one of another run."""
    for file in sorted(path.glob("audits/*/audit.json")):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            stated = facts.get("commitment", record.commitment), facts.get("model_digest")
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(
                f"Expected {file} to be an audit of the run, but reading it raised "
                f"{type(error).__name__}: {error}. It is damaged: take it from a copy."
            ) from error
        if stated != (record.commitment, record.digest_after):
            raise InputError(
                f"Expected {file} to be an audit of the run, got one of another run. It was put "
                "there from elsewhere: take it away."
            )


def refuse_other_statistics(
    statistics: FeatureStatistics,
    model: nn.Module,
    head: Head | None,
    requests: tuple[Forgotten, ...],
) -> None:
    """Raise StatisticsError where they are not those of the run's model and of what stays.

    The ids are compared where the statistics know theirs.
    """
    if head is None:
        raise StatisticsError(
            "Expected no statistics.safetensors beside a model without a plain final layer, got "
            "one. It is of another run: take it away."
        )
    statistics.check(model, head)
    members = statistics.members
    if members is None:
        return
    held = sum(statistics.member(i) in members for request in requests for i in request.ids)
    if held or len(members) != statistics.sums.rows:
        what = (
            f"{held} forgotten records among them"
            if held
            else f"{len(members):,} ids for {statistics.sums.rows:,} rows"
        )
        raise StatisticsError(
            f"Expected the statistics of what stays with their own ids, got {what}. "
            "statistics.safetensors or private/members.npy is of another run: take both from a "
            "copy."
        )


def refuse_other_certificate(path: Path, record: RunRecord, weights: Path) -> None:
    """Raise InputError where the certificate in `path` is not of these weights and this record."""
    content = read_file(path / CERTIFICATE)
    if content is None:
        return
    statement = parse_statement(parse_envelope(content).payload)
    other = next(_faults(statement, record, _sha256(weights)), None)
    if other is not None:
        raise InputError(
            f"Expected {path / CERTIFICATE} to be the certificate of the run, but {other}. It or "
            "another part of the folder was edited or exchanged: take both from a copy."
        )


def _faults(statement: Statement, record: RunRecord, weights: str) -> Iterator[str]:
    if statement.model.file != weights:
        yield "it speaks of another model file"
    if record.certificate == "none":
        yield "the record says that there is none"
    if statement.seed != str(record.seed):
        yield "it names another seed"
    if (statement.form == "narrow") != (record.aim == "absent"):
        yield "it is for another aim"
    latest = max((r.request for r in statement.records), default=0)
    count = sum(r.request == latest for r in statement.records)
    if record.scope == "records" and record.certified_count not in (None, count):
        yield f"it claims {count:,} records, the record says {record.certified_count:,}"


def refuse_other_evidence(evidence: Evidence | None, requests: tuple[Forgotten, ...]) -> None:
    """Raise InputError where a certificate's private part names records that were not forgotten."""
    if evidence is None:
        return
    known = {i for request in requests for i in request.ids}
    strange = [r.id for r in evidence.records if r.id not in known]
    if strange:
        raise InputError(
            f"Expected the certificate to claim forgotten records only, got {len(strange)} that "
            "the history does not name. private/ was put together from two runs: take it from a "
            "copy."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
