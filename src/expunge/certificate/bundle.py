"""What lies beside a certificate for those who may see it: rows, ids, salts, targets, witnesses.

    RUN/features.safetensors      "forget" (m, d): records, then entangled; "retained" (n, d)
    RUN/private/records.json      id, label, salt, claim, target, bound of every record; the salt of
                                  the retained rows; the ids for which nothing is claimed
    RUN/private/witnesses.json    for entangled records: which mean of retained rows they are
    KIT.zip: kit.json             one record, for the person it is about

Nothing here is believed because it is here: `fault_in` says whether it opens the commitments of
the certificate, and only then is it used.
"""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from expunge.certificate.canonical import VERSION, parse_canonical, real, version_refusal
from expunge.certificate.digests import (
    merkle_root,
    parse_container,
    read_tensors,
    record_commitment,
    target_commitment,
    witnesses_commitment,
)
from expunge.certificate.statement import Count, Digest, HexFloat, Part, Record, Statement
from expunge.errors import InputError

__all__ = [
    "FEATURES_FORMAT",
    "Features",
    "Kit",
    "PrivateEntangled",
    "PrivateRecord",
    "Records",
    "Witness",
    "Witnesses",
    "fault_in",
    "fault_in_record",
    "fault_in_witnesses",
    "features_in",
    "kit_in",
    "kit_row",
    "read_file",
    "records_in",
    "target_of",
    "witnesses_in",
]

FEATURES_FORMAT = "expunge-features-v1"
_KIT_ROOM = 2**16
_M = TypeVar("_M", bound=BaseModel)


class _Opening(Part):
    id: str
    label: Count
    salt: Digest
    index: Count


@final
class PrivateRecord(_Opening):
    """What opens the commitments of one forgotten record."""

    claim: Literal["unseen", "mispredict", "margin"]
    target: tuple[HexFloat, ...] | None
    bound: HexFloat
    request: Count


@final
class PrivateEntangled(_Opening):
    """What opens the commitment of one entangled record."""

    reason: Literal["identical", "hull", "rounding"]


@final
class Records(Part):
    """private/records.json."""

    version: Literal[1]
    retained_salt: Digest
    records: tuple[PrivateRecord, ...]
    entangled: tuple[PrivateEntangled, ...]
    not_merged: tuple[str, ...]
    earlier_without_claim: tuple[str, ...]


@final
class Witness(Part):
    """Weights of retained rows whose mean lies within `residual` of the record."""

    rows: tuple[Count, ...]
    weights: tuple[HexFloat, ...]
    residual: HexFloat


@final
class Witnesses(Part):
    """private/witnesses.json, aligned with the entangled records."""

    version: Literal[1]
    witnesses: tuple[Witness, ...]


@final
class Kit(_Opening):
    """kit.json of a holder's kit; `row` is base64 of the float32 row, little-endian."""

    type: Literal["expunge.kit"]
    version: Literal[1]
    claim: Literal["unseen", "mispredict", "margin"]
    target: tuple[HexFloat, ...] | None
    bound: HexFloat
    row: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The rows of features.safetensors: `forget` (m, d) and `retained` (n, d)."""

    forget: NDArray[np.float32]
    retained: NDArray[np.float32]


def read_file(path: Path) -> bytes | None:
    """The bytes of a file, or None where there is none; raises InputError where it is locked."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"Expected to be able to read {path}, but that raised {error}. Ask its owner, or "
            "verify with `--role public`."
        ) from error


def features_in(folder: Path) -> Features | None:
    """Read features.safetensors; None where there is none, InputError where it is damaged."""
    path = folder / "features.safetensors"
    blob = read_file(path)
    if blob is None:
        return None
    metadata = dict(parse_container(blob).metadata)
    tensors = read_tensors(blob)
    fits = (
        metadata == {"format": FEATURES_FORMAT}
        and tensors.keys() == {"forget", "retained"}
        and all(t.dtype == np.float32 and t.ndim == 2 for t in tensors.values())
    )
    if not fits:
        raise _damaged(path, f"the tensors forget and retained in the form {FEATURES_FORMAT}")
    return Features(tensors["forget"], tensors["retained"])


def records_in(folder: Path) -> Records | None:
    """Read private/records.json; None where there is none, InputError where it is damaged."""
    path = folder / "private" / "records.json"
    content = read_file(path)
    return None if content is None else _model(Records, content, path)


def witnesses_in(content: bytes, path: Path) -> tuple[Witness, ...]:
    """Read the bytes of private/witnesses.json; raises InputError where they are damaged."""
    return _model(Witnesses, content, path).witnesses


def kit_in(path: Path, *, row: int, classes: int) -> Kit:
    """Read a holder's kit for rows of `row` values; raises InputError where it is none."""
    content = read_file(path)
    if content is None:
        raise InputError(f"Expected a kit at {path}, found no file. Check the path of `record`.")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.getinfo("kit.json")
            most = _KIT_ROOM + 8 * row + 40 * classes
            inner = archive.open(found).read(most) if found.file_size <= most else b""
    except Exception as error:
        raise _damaged(path, "a kit that `expunge sign` wrote") from error
    return _model(Kit, inner, path)


def kit_row(kit: Kit, path: Path) -> NDArray[np.float32]:
    """The feature row (d,) of a kit; raises InputError where it is damaged."""
    try:
        raw = base64.b64decode(kit.row, validate=True)
        return np.frombuffer(raw, dtype="<f4")
    except (binascii.Error, ValueError) as error:
        raise _damaged(path, "a kit whose row is base64 of float32 numbers") from error


def _model(kind: type[_M], content: bytes, path: Path) -> _M:
    facts = parse_canonical(content, what=str(path))
    found = facts.get("version") if isinstance(facts, dict) else None
    if type(found) is int and found > VERSION:
        raise version_refusal(str(path), found)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise _damaged(path, f"what Expunge wrote ({at}: {first['msg']})") from error


def _damaged(path: Path, expected: str) -> InputError:
    return InputError(
        f"Expected {path} to hold {expected}, got something else. It was changed or damaged: take "
        "it from a copy."
    )


def target_of(entry: PrivateRecord | Kit) -> NDArray[np.float64] | None:
    """The target logits (K,) of a record, where it has them."""
    return None if entry.target is None else np.array([real(t) for t in entry.target])


def fault_in_record(
    public: Record, entry: PrivateRecord | Kit, row: NDArray[np.float32], classes: int
) -> str | None:
    """Why `entry` and `row` (d,) do not open the public record, or None where they do."""
    if record_commitment(entry.salt, entry.id, entry.label, row) != public.commitment:
        return "salt, id, label and row do not open its commitment"
    target = target_of(entry)
    opened = None if target is None else target_commitment(entry.salt, target)
    if opened != public.target:
        return "the target does not open its commitment"
    if (entry.claim, entry.bound) != (public.claim, public.bound):
        return "the certificate claims another bound for it"
    if not np.isfinite(row).all():
        return "its row is not finite"
    if entry.label >= classes or (target is not None and len(target) != classes):
        return "its label or target does not fit the classes of the model"
    return None


def fault_in(statement: Statement, features: Features, private: Records) -> str | None:
    """Why rows and private records do not open the certificate, or None where all of them do."""
    size = statement.model.row
    public = statement.records
    left = statement.entangled.records
    if features.forget.shape != (len(public) + len(left), size):
        return "features.safetensors holds another number or size of forgotten rows"
    if features.retained.shape != (statement.retained.count, size):
        return "features.safetensors holds another number or size of retained rows"
    if (len(private.records), len(private.entangled)) != (len(public), len(left)):
        return "private/records.json holds another number of records"
    for i, (record, entry) in enumerate(zip(public, private.records, strict=True)):
        fault = fault_in_record(record, entry, features.forget[i], statement.model.classes)
        if fault is None and (entry.index, entry.request) != (i, record.request):
            fault = "it stands at another place"
        if fault is not None:
            return f"record {i}: {fault}"
    rows = features.forget[len(public) :]
    for i, (unpatched, opening) in enumerate(zip(left, private.entangled, strict=True)):
        found = record_commitment(opening.salt, opening.id, opening.label, rows[i])
        if (found, opening.reason, opening.index) != (unpatched.commitment, unpatched.reason, i):
            return f"entangled record {i}: salt, id, label and row do not open its commitment"
    ids = [entry.id for entry in (*private.records, *private.entangled)]
    ids += (*private.not_merged, *private.earlier_without_claim)
    if len(set(ids)) != len(ids):
        return "one record stands there more than once"
    counts = len(private.not_merged), len(private.earlier_without_claim)
    if counts != (statement.not_merged, statement.earlier_without_claim):
        return "private/records.json holds another number of records without a claim"
    if merkle_root(private.retained_salt, features.retained) != statement.retained.root:
        return "the retained rows do not have the Merkle root of the certificate"
    if not np.isfinite(features.retained).all() or not np.isfinite(rows).all():
        return "some rows are not finite"
    return None


def fault_in_witnesses(statement: Statement, private: Records, content: bytes) -> str | None:
    """Why the bytes of private/witnesses.json are not those of the certificate."""
    stated = statement.entangled.witnesses
    if stated and witnesses_commitment(private.retained_salt, content) != stated:
        return "private/witnesses.json is not the file of the certificate"
    return None
