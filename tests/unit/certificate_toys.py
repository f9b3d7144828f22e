"""Small certified runs, made by hand with numpy: no method, no torch."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from expunge.certificate import EntangledEvidence, Evidence, Layer, RecordEvidence
from expunge.certificate.canonical import canonical
from expunge.certificate.digests import tensor_digests
from expunge.certificate.envelope import (
    Envelope,
    parse_envelope,
    private_key,
    signed,
    write_envelope,
)
from expunge.certificate.keys import keygen, sign_run
from expunge.certificate.write import write_certificate

SIZE, CLASSES, RECORDS, RETAINED = 6, 4, 3, 20
CERTIFICATE = "certificate.dsse.json"


def salt(text):
    return hashlib.sha256(text.encode()).hexdigest()


def rows_and_tensors(seed=0):
    """Retained rows in a unit cube; record i stands out along axis i, where its gate looks."""
    rng = np.random.default_rng(seed)
    retained = rng.random((RETAINED, SIZE), dtype=np.float32)
    forget = rng.random((RECORDS, SIZE), dtype=np.float32)
    forget[np.arange(RECORDS), np.arange(RECORDS)] += 5
    base = {
        "conv.weight": rng.standard_normal((3, 2)).astype(np.float32),
        "fc.weight": rng.standard_normal((CLASSES, SIZE)).astype(np.float32),
        "fc.bias": rng.standard_normal(CLASSES).astype(np.float32),
        "norm.count": np.array(7, dtype=np.int64),
    }
    targets = rng.standard_normal((RECORDS, CLASSES)).astype(np.float32).astype(np.float64)
    return retained, forget, base, targets


def plain_logits(tensors, rows):
    wide = rows.astype(np.float64) @ tensors["fc.weight"].astype(np.float64).T
    return wide + tensors["fc.bias"]


def gates(base, forget, targets):
    old = plain_logits(base, forget)
    return {
        "fc.gate_weight": np.eye(RECORDS, SIZE, dtype=np.float32),
        "fc.gate_bias": np.full(RECORDS, -3, np.float32),
        "fc.shift": np.ascontiguousarray((targets - old).T.astype(np.float32)),
    }


def records(forget, targets, labels):
    first = {"claim": "unseen", "target": targets[0], "tolerance": 1e-4}
    margin = {"claim": "margin", "target": targets[1], "tolerance": 1e-4}
    worst = np.delete(targets[2], labels[2]).max() - targets[2][labels[2]]
    last = {"claim": "mispredict", "target": None, "tolerance": float(worst) - 1e-3}
    return tuple(
        RecordEvidence(
            id=f"record-{i}",
            label=int(labels[i]),
            salt=salt(f"record {i}"),
            row=forget[i],
            request=min(i, 1),
            **claimed,
        )
        for i, claimed in enumerate((first, margin, last))
    )


def entangled(retained):
    weights = np.array([0.25, 0.75])
    mean = (weights @ retained[:2].astype(np.float64)).astype(np.float32)
    facts = {
        "identical": (retained[4], [4], [1.0], 0.0),
        "hull": (mean, [0, 1], weights, 1e-6),
        "rounding": (retained[5] + np.float32(1e-6), [], [], 0.0),
    }
    return tuple(
        EntangledEvidence(
            id=f"entangled-{reason}",
            label=1,
            salt=salt(reason),
            row=row,
            reason=reason,
            rows=np.array(rows, dtype=np.int64),
            weights=np.array(given, dtype=np.float64),
            residual=residual,
        )
        for reason, (row, rows, given, residual) in facts.items()
    )


def digests(tensors, folder):
    path = folder / "base.safetensors"
    save_file(tensors, path)
    return tensor_digests(path.read_bytes())


def facts(retained, base, **changes):
    return Evidence(
        **{
            "form": "gated",
            "spec": "unseen",
            "head": "fc",
            "classes": CLASSES,
            "features": SIZE,
            "retained": retained,
            "retained_salt": salt("retained"),
            "rule": "a seeded draw from the tune predictions of its class",
            "seed": 7,
            "tune_digest": salt("tune"),
            "base": base,
            "method": {"name": "prune", "whiten": 0.5, "lp": True, "most": None, "rounds": 3},
            **changes,
        }
    )


@dataclass(frozen=True)
class Toy:
    """A signed run with its key, and what it was made from."""

    run: Path
    key: Path
    public: Path
    base: Path
    evidence: Evidence

    @property
    def certificate(self):
        return self.run / CERTIFICATE

    @property
    def payload(self):
        return json.loads(parse_envelope(self.certificate.read_bytes()).payload)

    def state(self, payload, *, signature=True):
        """Replace the payload, signed again by the trusted key."""
        content = payload if isinstance(payload, bytes) else canonical(payload)
        envelope = Envelope(content)
        if signature:
            envelope = signed(envelope, private_key(self.key.read_bytes()))
        self.certificate.write_bytes(write_envelope(envelope))

    def model(self, **tensors):
        """Replace tensors of the model file, and state and sign the new digests."""
        path = self.run / "model.safetensors"
        save_file({**load_file(path), **tensors}, path)
        payload, blob = self.payload, path.read_bytes()
        payload["model"]["file"] = hashlib.sha256(blob).hexdigest()
        payload["model"]["edited"] = tensor_digests(blob)
        self.state(payload)

    def rewrite(self, **changes):
        """Write the certificate anew from changed evidence, and sign it."""
        for name in (CERTIFICATE, "features.safetensors"):
            (self.run / name).unlink()
        for path in (self.run / "private").glob("*.json"):
            path.unlink()
        write_certificate(self.run, replace(self.evidence, **changes))
        self.state(self.payload)


def made(folder, evidence, tensors):
    run = folder / "run"
    run.mkdir(parents=True)
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})
    write_certificate(run, evidence)
    key, public = keygen(folder / "signer")
    sign_run(run, key)
    return Toy(run, key, public, folder / "base.safetensors", evidence)


def gated_toy(folder, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    retained, forget, base, targets = rows_and_tensors(seed)
    labels = [0, 1, int(targets[2].argmin())]
    evidence = facts(
        retained,
        digests(base, folder),
        records=records(forget, targets, labels),
        entangled=entangled(retained),
    )
    return made(folder, evidence, base | gates(base, forget, targets))


def narrow_toy(folder, removed=(1,)):
    folder.mkdir(parents=True, exist_ok=True)
    retained, _, base, _ = rows_and_tensors()
    kept = [k for k in range(CLASSES) if k not in removed]
    evidence = facts(
        retained[:0],
        digests(base, folder),
        form="narrow",
        spec="absent",
        removed=tuple(removed),
        tune_digest="",
    )
    tensors = base | {
        "fc.weight": base["fc.weight"][kept],
        "fc.bias": base["fc.bias"][kept],
        "fc.kept": np.array(kept, dtype=np.int64),
    }
    return made(folder, evidence, tensors)


def merged_toy(folder):
    folder.mkdir(parents=True, exist_ok=True)
    retained, forget, base, targets = rows_and_tensors()
    edited = base | {"fc.weight": base["fc.weight"] * np.float32(0.5)}
    got = plain_logits(edited, forget)
    labels = [0, 1, int(got[2].argmin())]
    targets[:2] = got[:2]
    targets[2] = got[2]
    evidence = facts(
        retained[:0],
        digests(base, folder),
        form="merged",
        unmerged=("unmerged-0", "unmerged-1"),
        records=records(forget, targets, labels),
    )
    return made(folder, evidence, edited)


def input_toy(folder):
    """A plain MLP: the claim starts at the input row."""
    folder.mkdir(parents=True, exist_ok=True)
    retained, forget, base, targets = rows_and_tensors()
    base = base | {"first.weight": np.eye(SIZE, dtype=np.float32)}
    layers = (Layer(op="linear", weight="first.weight"), Layer(op="relu"))
    labels = [0, 1, int(targets[2].argmin())]
    evidence = facts(
        retained,
        digests(base, folder),
        layers=layers,
        records=records(forget, targets, labels),
    )
    return made(folder, evidence, base | gates(base, forget, targets))
