"""Write run folders and audits: once, as a whole."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from expunge.certificate import Evidence, write_certificate
from expunge.errors import InputError, OutputError
from expunge.network.weights import save_weights, writing
from expunge.records import RECORD_VERSION, to_json
from expunge.results.history import history_text
from expunge.results.report import AuditReport
from expunge.results.unlearned import Unlearned
from expunge.runs.attempts import earlier_attempts
from expunge.runs.job import ResolvedJob, full_job, public_job
from expunge.runs.loading import record_in, weights_name
from expunge.runs.parts import digests_in
from expunge.statistics.features import member_array
from expunge.storage.toml import to_toml
from expunge.storage.whole import new_folder, private_folder, utc_stamp, write_private, write_text

__all__ = ["save_audit", "save_run"]


def save_run(
    result: Unlearned, path: Path | str | None = None, *, job: ResolvedJob | None = None
) -> Path:
    """Write `result` as a run folder and return its path (default runs/<utc>-<method>-<digest8>).

    The folder appears as a whole or not at all; its record counts earlier attempts at the same
    request beside it. Raises OutputError where it exists or cannot be
    written, and InputError where the history of `result` is not known.
    """
    if not result.history_known:
        raise InputError(_history_missing("be saved"))
    if path is None:
        digest = hashlib.sha256(to_json(result.record).encode()).hexdigest()[:8]
        path = Path("runs") / f"{utc_stamp()}-{result.record.method}-{digest}"
    path = Path(path)
    attempts = earlier_attempts(path.absolute().parent, result.record, result.forgotten[-1])
    known = dataclasses.replace(result.record, attempts=attempts, version=RECORD_VERSION)
    record = to_json(known)
    full = full_job(result, job)
    with new_folder(path) as folder:
        save_weights(result.model, folder / weights_name(result.record))
        write_text(folder / "record.json", record)
        write_text(folder / "job.toml", to_toml(public_job(result, full, job)))
        if result.statistics is not None:
            with writing(folder / "statistics.safetensors"):
                result.statistics.without_ids().save(folder / "statistics.safetensors")
        private = private_folder(folder / "private")
        if result.statistics is not None and result.statistics.members is not None:
            buffer = io.BytesIO()
            np.save(buffer, member_array(result.statistics.members))
            write_private(private / "members.npy", buffer.getvalue())
        origin = f"# Relative paths start at {job.folder}\n" if job and job.folder else ""
        write_private(private / "job.toml", (origin + to_toml(full)).encode())
        named = {} if job is None else job.files
        if result.evidence is not None and result.record.outcome.outcome.accepted:
            write_certificate(folder, result.evidence)
        if result.evidence is not None or result.refused:
            write_private(private / "left.json", _left(result).encode())
        if result.twins:
            write_private(private / "twins.json", _twins(result).encode())
        history = history_text(result, named, digests_in(folder))
        write_private(private / "history.json", history.encode())
    return path


def save_audit(run: Path | str, report: AuditReport) -> Path:
    """Write `report` to RUN/audits/<utc>-<digest8>/audit.json and return that new folder.

    Raises OutputError where `run` is no run folder, and InputError for the report of another run.
    """
    run = Path(run)
    if not (run / "record.json").is_file():
        raise OutputError(f"Expected a run folder at {run}, found none. Save the run first.")
    _refuse_other_run(run, report)
    text = to_json(report)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = run / "audits" / f"{utc_stamp()}-{digest}"
    with new_folder(path) as folder:
        write_text(folder / "audit.json", text)
    return path


def _refuse_other_run(run: Path, report: AuditReport) -> None:
    """Raise InputError where the report does not speak of this run and its weights."""
    record = record_in(run)
    facts = {
        "request": (record.commitment, report.commitment),
        "original": (record.digest_before, report.digest_before),
        "weights": (record.digest_after, report.model_digest),
        "method": (record.method, report.method),
        "limits": (record.limits, report.limits),
    }
    other = [name for name, (stored, said) in facts.items() if stored != said]
    if other:
        raise InputError(
            f"Expected `report` to be an audit of the run in {run}, got one with another "
            f"{other[0]}. Save it beside the run it was made of; a model that was changed since "
            "`unlearn` is not that run's."
        )


def _left(result: Unlearned) -> str:
    """Records that nothing was done for: why, and the ids of the retained rows that prevent it."""
    entries = [] if result.evidence is None else _without_claim(result.evidence)
    named = {entry["id"] for entry in entries}
    entries += [
        {"id": text, "reason": reason}
        for text, reason in result.refused.items()
        if text not in named
    ]
    return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"


def _twins(result: Unlearned) -> str:
    """Records whose content stays under another id, with the ids of the rows that stay."""
    entries = [{"id": text, "the same as": list(others)} for text, others in result.twins.items()]
    return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"


def _without_claim(evidence: Evidence) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [
        {"id": e.id, "label": e.label, "reason": e.reason, "because of": list(e.names)}
        for e in evidence.entangled
    ]
    entries += [{"id": text, "reason": "not merged"} for text in evidence.unmerged]
    entries += [
        {"id": text, "reason": "of an earlier request"} for text in evidence.earlier_without_claim
    ]
    return entries


def _history_missing(verb: str) -> str:
    return (
        f"Expected a run whose history is known to {verb}, got one loaded without its private/ "
        "part: what it forgot could serve as training data again. Put private/ back beside its "
        "record.json, and load it again."
    )
