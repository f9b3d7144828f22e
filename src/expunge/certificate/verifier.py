"""The checker: what of a certificate holds, from stored bytes alone, trusting nobody.

It imports neither torch nor anything that built the patch. Every claim of a role is verified,
refuted or not checked; only a certificate whose every claim is verified is accepted.

    public    signature, wording, model file, base weights kept, form of the head
    auditor   and: rows as bound, forgotten records, gates shut, entangled records
    holder    public, and: one record, opened by the holder's kit

What it prints are sentences of its own about the fields of the certificate, never a text from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from expunge.certificate.bundle import (
    fault_in,
    fault_in_record,
    fault_in_witnesses,
    features_in,
    kit_in,
    kit_row,
    read_file,
    records_in,
    witnesses_in,
)
from expunge.certificate.claims import Claim, Status, entangled_claim, gates_claim, records_claim
from expunge.certificate.digests import record_commitment
from expunge.certificate.envelope import (
    CERTIFICATE,
    Envelope,
    is_signed_by,
    parse_envelope,
    public_key,
)
from expunge.certificate.layers import Network
from expunge.certificate.model_file import answer, base_fault, model_claims
from expunge.certificate.run_record import outcome_beside
from expunge.certificate.statement import (
    DOES_NOT_CLAIM,
    Statement,
    parse_statement,
)
from expunge.certificate.wording import reach_of, sentence_of
from expunge.errors import InputError

__all__ = ["Claim", "Role", "Verification", "verify"]

Role = Literal["auditor", "holder", "public"]
Recompute = Callable[[Path, Path], float | str]

_NEAR = 1e-4


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found: every claim of the role, and in words what the certificate states.

    `reach` says how far a claim about records reaches, None for a class. `outcome` is that in the
    record of the run beside it, None without one: not signed, and no claim.
    """

    role: Role
    certificate: str
    payload_digest: str
    sentence: str
    reach: str | None
    outcome: str | None
    does_not_claim: tuple[str, ...]
    claims: tuple[Claim, ...]

    @property
    def verdict(self) -> Literal["verified", "refuted", "not all checked"]:
        """The worst that was found of any claim."""
        found = {claim.status for claim in self.claims}
        if "refuted" in found:
            return "refuted"
        return "not all checked" if "not checked" in found or not found else "verified"

    @property
    def exit_code(self) -> int:
        """0 where every claim is verified, 10 where one is refuted, 11 otherwise."""
        return {"verified": 0, "refuted": 10, "not all checked": 11}[self.verdict]


def verify(
    path: Path | str,
    *,
    trust: Path | str | None = None,
    role: Role = "auditor",
    record: Path | str | None = None,
    base: Path | str | None = None,
    recompute: Recompute | None = None,
    job: Path | str | None = None,
) -> Verification:
    """Verify the certificate of a run folder, or one by its file name, for a role.

    `trust` is the signer's public key; `record` the kit of a holder; `base` the weights before the
    edit. With `job` the claim `features from records` is added: `recompute(run, job)` gives the
    largest difference, or says what differs. Raises InputError where the certificate or a file
    beside it is unreadable, of a newer version, the key is not Ed25519, or the kit's record is not
    in the certificate.
    """
    path = Path(path)
    file = path / CERTIFICATE if path.is_dir() else path
    content = read_file(file)
    if content is None:
        raise InputError(
            f"Expected a certificate at {file}, found no file. Name a run folder that holds "
            f"{CERTIFICATE}, or such a file."
        )
    if (role == "holder") != (record is not None):
        raise InputError(
            f"Expected `record` for the role holder and no other, got role {role!r} "
            f"{'without' if record is None else 'with'} it. Name the kit, or another role."
        )
    envelope = parse_envelope(content)
    statement = parse_statement(envelope.payload)
    digest = hashlib.sha256(envelope.payload).hexdigest()
    folder = file.parent
    found, network = model_claims(folder, statement)
    claims = [_signature(envelope, trust), _wording(statement), *found]
    if role == "auditor":
        claims += _auditor_claims(folder, statement, network, int(digest[:16], 16))
    if record is not None:
        claims.append(_holder_claim(Path(record), statement, network))
    if base is not None:
        claims.append(_base_claim(Path(base), folder, statement))
    if job is not None:
        claims.append(_recomputed(folder, Path(job), recompute))
    return Verification(
        role=role,
        certificate=str(file),
        payload_digest=digest,
        sentence=sentence_of(statement),
        reach=reach_of(statement),
        outcome=outcome_beside(folder),
        does_not_claim=DOES_NOT_CLAIM,
        claims=tuple(claims),
    )


def _signature(envelope: Envelope, trust: Path | str | None) -> Claim:
    key = None
    if trust is not None:
        pem = read_file(Path(trust))
        if pem is None:
            raise InputError(f"Expected a public key at {trust}, found no file. Check `trust`.")
        key = public_key(pem)
    if envelope.signature is None:
        return Claim("signature", "not checked", "the certificate is not signed")
    if key is None:
        signer = envelope.signature.keyid[:16]
        return Claim("signature", "not checked", f"signer {signer} unknown: no key is trusted")
    if not is_signed_by(envelope, key):
        return Claim("signature", "refuted", "it is not a signature by the trusted key")
    return Claim("signature", "verified", f"by the trusted key {envelope.signature.keyid[:16]}")


def _wording(statement: Statement) -> Claim:
    if statement.claim != sentence_of(statement):
        return Claim("wording", "refuted", "the sentence says other than the fields")
    if statement.does_not_claim != DOES_NOT_CLAIM:
        return Claim("wording", "refuted", "what is not claimed was edited")
    return Claim("wording", "verified", "the sentences are those of version 1")


def _auditor_claims(
    folder: Path, statement: Statement, network: Network | None, seed: int
) -> list[Claim]:
    if statement.form == "narrow":
        return []  # nothing depends on rows: the claim holds for every input
    names = ["rows as bound", "forgotten records"]
    if statement.form == "gated":
        names.append("gates shut")
    shown = any(entry.reason != "rounding" for entry in statement.entangled.records)
    if shown:
        names.append("entangled records")
    features, private = features_in(folder), records_in(folder)
    if features is None or private is None:
        missing = "features.safetensors" if features is None else "private/records.json"
        return [Claim(name, "not checked", f"there is no {missing}") for name in names]
    fault = fault_in(statement, features, private)
    if fault is not None or network is None:
        bound = answer("rows as bound", fault, _bound_detail(statement))
        why = "the model is another one" if network is None else "the rows are other ones"
        return [bound, *(Claim(name, "not checked", why) for name in names[1:])]
    count = len(statement.records)
    claims = [
        Claim("rows as bound", "verified", _bound_detail(statement)),
        records_claim(network, private.records, features.forget[:count], seed),
    ]
    if statement.form == "gated":
        claims.append(gates_claim(network, features.retained, seed))
    if shown:
        path = folder / "private" / "witnesses.json"
        stored = read_file(path)
        if stored is None:
            claims.append(Claim("entangled records", "not checked", f"there is no {path.name}"))
        elif (fault := fault_in_witnesses(statement, private, stored)) is not None:
            claims.append(Claim("entangled records", "refuted", fault))
        else:
            witnesses, rows = witnesses_in(stored, path), features.forget[count:]
            found = entangled_claim(network, private.entangled, witnesses, rows, features.retained)
            claims.append(found)
    return claims


def _bound_detail(statement: Statement) -> str:
    count = len(statement.records) + len(statement.entangled.records)
    return f"{count:,} forgotten and {statement.retained.count:,} retained rows"


def _holder_claim(path: Path, statement: Statement, network: Network | None) -> Claim:
    name = "this record"
    kit = kit_in(path, row=statement.model.row, classes=statement.model.classes)
    row = kit_row(kit, path)
    commitment = record_commitment(kit.salt, kit.id, kit.label, row)
    place = next((i for i, r in enumerate(statement.records) if r.commitment == commitment), None)
    if place is None:
        raise InputError(
            f"Expected the record of {path} to be in the certificate, found no commitment that it "
            "opens. Ask for the certificate that the kit was made with, or for a new kit."
        )
    if row.shape != (statement.model.row,):
        return Claim(name, "refuted", "its row has another length than the model's")
    fault = fault_in_record(statement.records[place], kit, row, statement.model.classes)
    if fault is None and kit.index != place:
        fault = "it stands at another place of the certificate"
    if fault is not None:
        return Claim(name, "refuted", fault)
    if network is None:
        return Claim(name, "not checked", "there is no model to check it on")
    found = records_claim(network, [kit], row[None], 0)
    return Claim(name, found.status, found.detail)


def _base_claim(path: Path, folder: Path, statement: Statement) -> Claim:
    blob = read_file(path)
    if blob is None:
        raise InputError(f"Expected base weights at {path}, found no file. Check `base`.")
    model = read_file(folder / "model.safetensors")
    fault = base_fault(blob, model, statement)
    if fault is None and model is None and statement.form == "narrow":
        return Claim("base weights", "not checked", "there is no model file whose rows to compare")
    return answer("base weights", fault, f"{len(statement.model.base)} tensors of the file given")


def _recomputed(folder: Path, job: Path, recompute: Recompute | None) -> Claim:
    name = "features from records"
    if recompute is None:
        return Claim(name, "not checked", "computing features needs torch, which is not here")
    largest = recompute(folder, job)
    if isinstance(largest, str):
        return Claim(name, "refuted", largest)
    status: Status = "verified" if largest <= _NEAR else "refuted"
    return Claim(name, status, f"largest relative difference {largest:.3g}, allowed {_NEAR:g}")
