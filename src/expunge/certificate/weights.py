"""The checks on the model file: its digests, what of the base it keeps, the form of its head."""

from __future__ import annotations

import hashlib
from pathlib import Path

from expunge.certificate.bundle import read_file
from expunge.certificate.digests import read_tensors, tensor_digests
from expunge.certificate.network import GATE_TENSORS, Network, network_of, under
from expunge.certificate.proofs import Claim
from expunge.certificate.statement import Statement
from expunge.errors import InputError

__all__ = ["answer", "model_claims"]


def model_claims(folder: Path, statement: Statement) -> tuple[list[Claim], Network | None]:
    """The claims on the model file and the certificate itself; the network where they hold."""
    kept = answer("base weights kept", _base_fault(statement), "every tensor outside the patch")
    blob = read_file(folder / "model.safetensors")
    if blob is None:
        missing = "there is no model.safetensors beside the certificate"
        return [
            Claim("model file", "not checked", missing),
            kept,
            Claim("form of the head", "not checked", missing),
        ], None
    fault = _file_fault(blob, statement)
    if fault is not None:
        skipped = Claim("form of the head", "not checked", "the model file is another one")
        return [Claim("model file", "refuted", fault), kept, skipped], None
    found: Network | None = None
    try:
        found = _network(blob, statement)
        fault = _form_fault(found, statement)
    except InputError as error:
        fault = str(error)
    claims = [
        Claim("model file", "verified", f"SHA-256 {statement.model.file[:16]}, every tensor"),
        kept,
        answer("form of the head", fault, _form(statement)),
    ]
    return claims, found if fault is None else None


def answer(name: str, fault: str | None, holds: str) -> Claim:
    """A claim that is refuted by a fault, and verified where there is none."""
    return Claim(name, "verified", holds) if fault is None else Claim(name, "refuted", fault)


def _form(statement: Statement) -> str:
    if statement.form == "narrow":
        return "the rows of the removed classes are gone, for every input"
    return "a head with gates" if statement.form == "gated" else "one head, without gates"


def _base_fault(statement: Statement) -> str | None:
    head, base, edited = statement.model.head, statement.model.base, statement.model.edited
    own = {under(head, "weight"), under(head, "bias")}
    free = {
        "gated": {under(head, name) for name in GATE_TENSORS},
        "merged": own,
        "narrow": own | {under(head, "kept")},
    }[statement.form]
    for name in sorted((base.keys() | edited.keys()) - free):
        if base.get(name) != edited.get(name):
            return f"{name!r} is not the tensor of the base weights"
    return None


def _file_fault(blob: bytes, statement: Statement) -> str | None:
    if hashlib.sha256(blob).hexdigest() != statement.model.file:
        return "model.safetensors is not the file of the certificate"
    try:
        digests = tensor_digests(blob)
    except InputError as error:
        return str(error)
    return None if digests == statement.model.edited else "its tensors are not those stated"


def _network(blob: bytes, statement: Statement) -> Network:
    model = statement.model
    layers = [(op.op, op.weight, op.bias) for op in model.layers]
    return network_of(read_tensors(blob), head=model.head, features=model.row, layers=layers)


def _form_fault(network: Network, statement: Statement) -> str | None:
    if statement.form == "narrow":
        if network.kept != statement.kept:
            return "the classes that are left are not those stated"
    elif network.kept is not None or len(network.weight) != statement.model.classes:
        return "the head has not one row for each class"
    if statement.form != "gated" and len(network.gate_weight):
        return "the head has gates that this form has not"
    return None
