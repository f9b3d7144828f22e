"""The checks on the model file: its digests, what of the base it keeps, the form of its head."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from expunge.certificate.bundle import read_file
from expunge.certificate.claims import Claim
from expunge.certificate.digests import read_tensors, tensor_digests
from expunge.certificate.layers import GATE_TENSORS, Network, network_of, under
from expunge.certificate.statement import Statement
from expunge.errors import InputError

__all__ = ["answer", "base_fault", "model_claims"]


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
    """Why base and edited weights do not differ as this form makes them differ, or None."""
    head, base, edited = statement.model.head, statement.model.base, statement.model.edited
    weight, bias, kept = (under(head, name) for name in ("weight", "bias", "kept"))
    gates = {under(head, name) for name in GATE_TENSORS}
    free = {"gated": gates, "merged": {weight, bias}, "narrow": {weight, bias, kept}}
    for name in sorted((base.keys() | edited.keys()) - free[statement.form]):
        if base.get(name) != edited.get(name):
            return f"{name!r} is not the tensor of the base weights"
    if weight not in base or weight not in edited or (bias in base) != (bias in edited):
        return f"the head {head!r} is not a head of the base weights"
    if (gates | {kept}) & base.keys():
        return f"the base weights have gates or removed rows at {head!r} already"
    same = base[weight] == edited[weight]
    if statement.form == "narrow" and same:
        return f"{weight!r} is that of the base weights: no row was taken away"
    if statement.form == "merged" and same and base.get(bias) == edited.get(bias):
        return f"the head {head!r} is that of the base weights: nothing was edited"
    named = [n for op in statement.model.layers for n in (op.weight, op.bias) if n is not None]
    if set(named) & (free[statement.form] | {weight, bias}) or len(set(named)) != len(named):
        return "a layer before the head names a tensor of the head, or one tensor twice"
    return None


def base_fault(blob: bytes, model: bytes | None, statement: Statement) -> str | None:
    """Why a file is not the base weights of the certificate, or None where it is.

    In the narrow form the rows that are left must be those of the base, bit for bit.
    """
    stated, found = statement.model.base, tensor_digests(blob)
    wrong = sorted(n for n in found.keys() | stated.keys() if found.get(n) != stated.get(n))
    if wrong:
        return f"{wrong[0]!r} is another tensor, or in one file only"
    if statement.form != "narrow" or model is None:
        return None
    old, new = read_tensors(blob), read_tensors(model)
    for name in (under(statement.model.head, part) for part in ("weight", "bias")):
        if name not in old and name not in new:
            continue
        rows = old[name] if name in old else np.zeros(0)
        if name not in new or rows.ndim == 0 or len(rows) != statement.model.classes:
            return f"{name!r} has not one row for each class"
        if rows[list(statement.kept)].tobytes() != new[name].tobytes():
            return f"the rows of {name!r} that are left are not those of the base weights"
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
    if (statement.form == "gated") != bool(len(network.gate_weight)):
        return "the head has gates that this form has not, or none where it has some"
    return None
