"""The run folder: written once, as a whole; read back in a fresh process.

    RUN/job.toml                  resolved, with digests of named files and no selection
    RUN/model.safetensors         or rejected.safetensors, where the outcome is not accepted
    RUN/record.json
    RUN/statistics.safetensors    where kept, without ids
    RUN/certificate.dsse.json     where the method makes one, with `signatures: []` until signed
    RUN/features.safetensors      with a certificate: for the auditor, mode 0600, never published
    RUN/audits/<utc>-<digest8>/   added later, one folder an audit
    RUN/private/                  mode 0700: the full job, ids, classes, labels, salts

Everything outside `private/` may be shared. Without `private/` a run can be loaded and used, but
not unlearned further: what it forgot would be unknown.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import nn

from expunge._history import history_text, read_history
from expunge._state import digest_of, state_of
from expunge._stored import (
    new_folder,
    private_folder,
    read_record,
    to_toml,
    utc_stamp,
    write_private,
    write_text,
)
from expunge._weights import build, load_weights, read_weights, save_weights, writing
from expunge.auditing import AuditReport
from expunge.certificate import Evidence, payload_digest, read_evidence, write_certificate
from expunge.errors import InputError, ModelError, OutputError
from expunge.heads import Head, head_at
from expunge.models.patched import patched_like
from expunge.models.reassure import RegionPatched, rebuild
from expunge.records import RunRecord, to_json
from expunge.statistics import FeatureStatistics, member_array, member_set
from expunge.unlearning import Unlearned, commitment

__all__ = ["ResolvedJob", "load_run", "save_audit", "save_run"]

_HIDDEN = "private"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedJob:
    """What a run was asked to do: `settings` table by table, every default filled in.

    `files` are SHA-256 digests of the files it names, under keys such as `model.weights`; `folder`
    is where relative paths start. All is given in full: `save_run` decides what leaves `private/`.
    """

    settings: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""


def save_run(
    result: Unlearned, path: Path | str | None = None, *, job: ResolvedJob | None = None
) -> Path:
    """Write `result` as a run folder and return its path (default runs/<utc>-<method>-<digest8>).

    The folder appears as a whole or not at all. Raises OutputError where it exists or cannot be
    written, and InputError where the history of `result` is not known.
    """
    if not result.history_known:
        raise InputError(_history_missing("be saved"))
    record = to_json(result.record)
    if path is None:
        digest = hashlib.sha256(record.encode()).hexdigest()[:8]
        path = Path("runs") / f"{utc_stamp()}-{result.record.method}-{digest}"
    path = Path(path)
    full = _full_job(result, job)
    with new_folder(path) as folder:
        save_weights(result.model, folder / _weights_name(result.record))
        write_text(folder / "record.json", record)
        write_text(folder / "job.toml", to_toml(_public_job(result, full, job)))
        if result.statistics is not None:
            with writing(folder / "statistics.safetensors"):
                result.statistics.without_ids().save(folder / "statistics.safetensors")
        private = private_folder(folder / "private")
        origin = f"# Relative paths start at {job.folder}\n" if job and job.folder else ""
        write_private(private / "job.toml", (origin + to_toml(full)).encode())
        write_private(
            private / "history.json",
            history_text(result, {} if job is None else job.files).encode(),
        )
        if result.statistics is not None and result.statistics.members is not None:
            buffer = io.BytesIO()
            np.save(buffer, member_array(result.statistics.members))
            write_private(private / "members.npy", buffer.getvalue())
        if result.evidence is not None and result.record.outcome.outcome.accepted:
            write_certificate(folder, result.evidence)
        if result.evidence is not None:
            write_private(private / "left.json", _left(result.evidence).encode())
    return path


def save_audit(run: Path | str, report: AuditReport) -> Path:
    """Write `report` to RUN/audits/<utc>-<digest8>/audit.json and return that new folder."""
    run = Path(run)
    if not (run / "record.json").is_file():
        raise OutputError(f"Expected a run folder at {run}, found none. Save the run first.")
    text = to_json(report)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = run / "audits" / f"{utc_stamp()}-{digest}"
    with new_folder(path) as folder:
        write_text(folder / "audit.json", text)
    return path


def load_run(path: Path | str, *, factory: Callable[[], nn.Module]) -> Unlearned:
    """Load a run folder: the model in eval mode, its record, statistics, and what was forgotten.

    `factory` builds the same architecture as when it was saved. Pass the result to `unlearn` for a
    further request; to go on with `Prune` after records, keep features.safetensors in the folder.
    Raises InputError for a folder that is none, and ModelError where the weights do not fit
    `factory` or are not those of the record.
    """
    path = Path(path)
    record = _read_record(path)
    weights = path / _weights_name(record)
    state = read_weights(weights)
    empty = build(factory)
    if {"active", "owner"} <= set(state):
        empty = rebuild(empty, state)
    elif record.head is not None:
        empty = patched_like(empty, record.head, state)
    model = load_weights(empty, state, source=str(weights)).eval()
    _check_digest(model, record, weights)
    forgotten, split_seed = read_history(path, record)
    return Unlearned(
        model=model,
        record=record,
        statistics=_read_statistics(path),
        forgotten=forgotten,
        split_seed=split_seed,
        head=_head(model, record),
        history_known=bool(forgotten),
        evidence=_evidence(path) if forgotten else None,
        certificate=payload_digest(path),
    )


def _evidence(path: Path) -> Evidence | None:
    """What the certificate was written from; None where the auditor's file is not there."""
    return read_evidence(path) if (path / "features.safetensors").exists() else None


def _left(evidence: Evidence) -> str:
    """Records that nothing was done for: why, and the ids of the retained rows that prevent it."""
    entries = [
        {"id": e.id, "label": e.label, "reason": e.reason, "because of": list(e.names)}
        for e in evidence.entangled
    ]
    entries += [{"id": text, "reason": "not merged"} for text in evidence.unmerged]
    entries += [
        {"id": text, "reason": "of an earlier request"} for text in evidence.earlier_without_claim
    ]
    return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"


def _weights_name(record: RunRecord) -> str:
    accepted = record.outcome.outcome.accepted
    return "model.safetensors" if accepted else "rejected.safetensors"


def _history_missing(verb: str) -> str:
    return (
        f"Expected a run whose history is known to {verb}, got one loaded without its private/ "
        "part: what it forgot could serve as training data again. Put private/ back beside its "
        "record.json, and load it again."
    )


def _full_job(result: Unlearned, job: ResolvedJob | None) -> dict[str, Any]:
    """The job with nothing left out; for a run made in Python, what the record tells of it."""
    if job is not None:
        return dict(job.settings)
    latest, record = result.forgotten[-1], result.record
    forget: dict[str, Any] = {"aim": latest.aim}
    if latest.scope == "classes":
        forget["classes"] = sorted(latest.classes)
    else:
        forget["ids"] = list(latest.ids)
    return {
        "seed": record.seed,
        "forget": forget,
        "method": {"name": record.method, **record.settings},
        "limits": json.loads(to_json(record.limits)),
    }


def _public_job(
    result: Unlearned, full: Mapping[str, Any], job: ResolvedJob | None
) -> dict[str, Any]:
    """The job as it may be shared: commitments instead of selections, no digest that gives away."""
    public = {k: dict(v) if isinstance(v, Mapping) else v for k, v in full.items()}
    public["forget"] = {
        "aim": result.record.aim,
        "scope": result.record.scope,
        "commitment": result.record.commitment,
        "commitments_before": [commitment(r) for r in result.forgotten[:-1]],
    }
    hidden = {"forget.classes", "forget.indices", "forget.ids"}
    data = public.get("data")
    if isinstance(data, dict) and data.get("forget") is not None:
        hidden |= {"data.forget", "data.ids"}
        data.update({k: _HIDDEN for k in ("forget", "ids") if data.get(k) is not None})
    if job is not None:
        public["files"] = {k: v for k, v in job.files.items() if k not in hidden}
    return {"split_seed": result.split_seed, **public}


def _read_record(path: Path) -> RunRecord:
    file = path / "record.json"
    try:
        return read_record(file.read_text(encoding="utf-8"), source=str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Expected a run folder at {path}, found no readable record.json in it. Name the "
            "folder that `expunge unlearn` or `save_run` wrote."
        ) from error


def _check_digest(model: nn.Module, record: RunRecord, weights: Path) -> None:
    digest = digest_of(state_of(model))
    if digest == record.digest_after:
        return
    volatile = sorted(set(state_of(model)) - set(model.state_dict()))
    hint = (
        f" The factory makes the non-persistent buffers anew ({volatile[0]!r}): they must be the "
        "same each time."
        if volatile
        else ""
    )
    raise ModelError(
        f"Expected the weights in {weights} to be those of the record "
        f"({record.digest_after[:12]}), got others ({digest[:12]}). The file was changed, or "
        f"`factory` builds in another dtype.{hint}"
    )


def _head(model: nn.Module, record: RunRecord) -> Head | None:
    if record.head is None or isinstance(model, RegionPatched):
        return None
    layer = model.get_submodule(record.head)
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"Expected the head {record.head!r} of the run to be nn.Linear, got "
            f"{type(layer).__name__}. `factory` builds another architecture."
        )
    return head_at(record.head, layer)


def _read_statistics(path: Path) -> FeatureStatistics | None:
    file = path / "statistics.safetensors"
    if not file.exists():
        return None
    statistics = FeatureStatistics.load(file)
    members = path / "private" / "members.npy"
    if not members.exists() or not os.access(members, os.R_OK):
        return statistics
    return statistics.with_members(member_set(np.load(members, allow_pickle=False)))
