"""Write the certificate of a run, and read back what it was written from.

`write_certificate` is called while the run folder is still a temporary one, after
model.safetensors and private/ are there. The certificate is unsigned; `expunge sign` adds the
signature.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save

from expunge.certificate.bundle import (
    FEATURES_FORMAT,
    fault_in,
    fault_in_witnesses,
    features_in,
    read_file,
    records_in,
    target_of,
    witnesses_in,
)
from expunge.certificate.canonical import VERSION, canonical, real
from expunge.certificate.digests import (
    merkle_root,
    record_commitment,
    target_commitment,
    tensor_digests,
    witnesses_commitment,
)
from expunge.certificate.envelope import CERTIFICATE, Envelope, parse_envelope, write_envelope
from expunge.certificate.facts import EntangledEvidence, Evidence, Layer, RecordEvidence
from expunge.certificate.statement import (
    DOES_NOT_CLAIM,
    SEMANTICS,
    UNIT_ROUNDOFF,
    Statement,
    parse_statement,
)
from expunge.certificate.wording import sentence_of
from expunge.errors import InputError
from expunge.storage.whole import private_folder, write_private

__all__ = ["payload_digest", "read_evidence", "statement_of", "write_certificate"]


def statement_of(evidence: Evidence, model_bytes: bytes, created: str) -> Statement:
    """The public statement that `evidence` supports, about a model file.

    `created` is UTC as 2026-01-31T23:59:59Z. Raises InputError where the facts do not agree with
    each other.
    """
    gated = evidence.form == "gated"
    removed = set(evidence.removed)
    facts = {
        "type": "expunge.certificate",
        "version": VERSION,
        "claim": "",
        "created": created,
        "tool": f"expunge {_tool()}",
        "form": evidence.form,
        "spec": evidence.spec,
        "method": {key: _text(value) for key, value in evidence.method.items()},
        "rule": evidence.rule,
        "seed": str(evidence.seed),
        "tune_logits": evidence.tune_digest,
        "model": {
            "file": hashlib.sha256(model_bytes).hexdigest(),
            "head": evidence.head,
            "classes": evidence.classes,
            "row": evidence.features,
            "starts_at": "input" if evidence.layers else "features",
            "layers": [{"op": x.op, "weight": x.weight, "bias": x.bias} for x in evidence.layers],
            "base": dict(evidence.base),
            "edited": tensor_digests(model_bytes),
        },
        "records": [_public(record) for record in evidence.records],
        "entangled": {
            "records": [
                {
                    "commitment": record_commitment(e.salt, e.id, e.label, e.row),
                    "reason": e.reason,
                }
                for e in evidence.entangled
            ],
            "witnesses": witnesses_commitment(evidence.retained_salt, _witnesses(evidence))
            if evidence.entangled
            else "",
        },
        "not_merged": len(evidence.unmerged),
        "earlier_without_claim": len(evidence.earlier_without_claim),
        "retained": {
            "count": len(evidence.retained),
            "root": merkle_root(evidence.retained_salt, evidence.retained),
            "claim": "every gate shut" if gated else "none",
        },
        "removed": sorted(removed),
        "kept": [k for k in range(evidence.classes) if k not in removed] if removed else [],
        "arithmetic": {"semantics": SEMANTICS, "unit_roundoff": UNIT_ROUNDOFF},
        "does_not_claim": list(DOES_NOT_CLAIM),
        "previous": evidence.previous,
    }
    try:
        draft = Statement.model_validate_json(canonical(facts))
    except (ValidationError, ValueError) as error:
        raise InputError(
            f"Expected evidence that a certificate can state, got: {error}. The method that made "
            "it is at fault."
        ) from error
    return draft.model_copy(update={"claim": sentence_of(draft)})


def _tool() -> str:
    try:
        return version("expunge")
    except PackageNotFoundError:  # running from a source tree
        return "of unknown version"


def _text(value: str | float | bool | None) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return value.hex() if isinstance(value, float) else str(value)


def _public(record: RecordEvidence) -> dict[str, Any]:
    target = record.target
    return {
        "commitment": record_commitment(record.salt, record.id, record.label, record.row),
        "target": None if target is None else target_commitment(record.salt, target),
        "claim": record.claim,
        "bound": float(record.tolerance).hex(),
        "request": record.request,
    }


def write_certificate(folder: Path, evidence: Evidence) -> None:
    """Write certificate, features and private records into `folder`, which holds the model file.

    Raises InputError where the evidence does not agree with itself; OSError where the disk fails.
    """
    statement = statement_of(
        evidence,
        (folder / "model.safetensors").read_bytes(),
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    private = folder / "private"
    if not private.is_dir():
        private_folder(private)
    rows = [r.row for r in evidence.records] + [e.row for e in evidence.entangled]
    forget = np.stack(rows) if rows else np.zeros((0, evidence.features), np.float32)
    features = save(
        {
            "forget": np.ascontiguousarray(forget, np.float32),
            "retained": np.ascontiguousarray(evidence.retained, np.float32),
        },
        metadata={"format": FEATURES_FORMAT},
    )
    write_private(folder / "features.safetensors", features)
    write_private(private / "records.json", _records(evidence))
    write_private(private / "witnesses.json", _witnesses(evidence))
    payload = canonical(statement.model_dump(mode="json"))
    (folder / CERTIFICATE).write_bytes(write_envelope(Envelope(payload)))


def _records(evidence: Evidence) -> bytes:
    records = [
        {
            **_opening(record, i),
            "claim": record.claim,
            "target": None if record.target is None else _reals(record.target),
            "bound": float(record.tolerance).hex(),
            "request": record.request,
        }
        for i, record in enumerate(evidence.records)
    ]
    left = [{**_opening(e, i), "reason": e.reason} for i, e in enumerate(evidence.entangled)]
    return canonical(
        {
            "version": VERSION,
            "retained_salt": evidence.retained_salt,
            "records": records,
            "entangled": left,
            "not_merged": list(evidence.unmerged),
            "earlier_without_claim": list(evidence.earlier_without_claim),
        }
    )


def _opening(record: RecordEvidence | EntangledEvidence, index: int) -> dict[str, Any]:
    return {"id": record.id, "label": record.label, "salt": record.salt, "index": index}


def _reals(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[str]:
    return [float(v).hex() for v in values]


def _witnesses(evidence: Evidence) -> bytes:
    witnesses = [
        {
            "rows": [int(r) for r in e.rows],
            "weights": _reals(e.weights),
            "residual": float(e.residual).hex(),
        }
        for e in evidence.entangled
    ]
    return canonical({"version": VERSION, "witnesses": witnesses})


def payload_digest(run: Path) -> str | None:
    """SHA-256 of the payload of a run's certificate, signed or not; None where it has none."""
    content = read_file(run / CERTIFICATE)
    return None if content is None else hashlib.sha256(parse_envelope(content).payload).hexdigest()


def read_evidence(run: Path) -> Evidence | None:
    """Read back what a run's certificate was written from; None where it has none.

    Raises InputError where rows or private records are missing, or do not open the certificate.
    The values of `method` come back as texts.
    """
    content = read_file(run / CERTIFICATE)
    if content is None:
        return None
    statement = parse_statement(parse_envelope(content).payload)
    features, private = features_in(run), records_in(run)
    path = run / "private" / "witnesses.json"
    stored = read_file(path)
    if features is None or private is None or stored is None:
        raise InputError(
            f"Expected features.safetensors and private/ beside the certificate of {run}, found "
            "not all of them. Without them its claims cannot be carried on: put them back."
        )
    fault = fault_in(statement, features, private)
    fault = fault or fault_in_witnesses(statement, private, stored)
    if fault is not None:
        raise InputError(
            f"Expected the private part of {run} to open its certificate, but {fault}. It was "
            "changed or damaged: take it from a copy."
        )
    witnesses = witnesses_in(stored, path)
    records = tuple(
        RecordEvidence(
            id=entry.id,
            label=entry.label,
            salt=entry.salt,
            row=features.forget[i].copy(),
            claim=entry.claim,
            target=target_of(entry),
            tolerance=real(entry.bound),
            request=entry.request,
        )
        for i, entry in enumerate(private.records)
    )
    entangled = tuple(
        EntangledEvidence(
            id=entry.id,
            label=entry.label,
            salt=entry.salt,
            row=features.forget[len(records) + i].copy(),
            reason=entry.reason,
            rows=np.array(witness.rows, dtype=np.int64),
            weights=np.array([real(w) for w in witness.weights]),
            residual=real(witness.residual),
        )
        for i, (entry, witness) in enumerate(zip(private.entangled, witnesses, strict=True))
    )
    model = statement.model
    return Evidence(
        form=statement.form,
        spec=statement.spec,
        head=model.head,
        classes=model.classes,
        features=model.row,
        layers=tuple(Layer(op=x.op, weight=x.weight, bias=x.bias) for x in model.layers),
        records=records,
        entangled=entangled,
        unmerged=private.not_merged,
        earlier_without_claim=private.earlier_without_claim,
        retained=features.retained.copy(),
        retained_salt=private.retained_salt,
        removed=statement.removed,
        rule=statement.rule,
        seed=int(statement.seed),
        tune_digest=statement.tune_logits,
        base=dict(model.base),
        previous=statement.previous,
        method=dict(statement.method),
    )
