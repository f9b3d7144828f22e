"""What binds a certificate to bytes: digests of tensors, commitments to rows, a Merkle root.

Everything is SHA-256 in lower-case hex. Tensors and commitments start with a domain prefix of
their own, leaves of the Merkle tree with byte 0 and its nodes with byte 1, so that no digest of one
kind can pass for one of another; the root over no rows is the digest of nothing. The safetensors
container is parsed here, strictly: a checker must know that no byte of the file escapes its
digests.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from expunge.certificate.canonical import unique_pairs
from expunge.errors import InputError

__all__ = [
    "Container",
    "StoredTensor",
    "merkle_root",
    "parse_container",
    "read_tensors",
    "record_commitment",
    "target_commitment",
    "tensor_digest",
    "tensor_digests",
    "witnesses_commitment",
]

_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_HEADER_LIMIT = 100_000_000
_MOST_AXES = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor as it lies in the file: its dtype in the container's words, shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A safetensors file, taken apart."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def parse_container(blob: bytes) -> Container:
    """Take a safetensors file apart; every byte of its data belongs to exactly one tensor.

    Raises InputError for anything else: a short or long file, overlaps, gaps, names used twice.
    """
    try:
        return _parsed(blob)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"Expected a safetensors file, but reading it raised {type(error).__name__}: {error}. "
            "It is damaged or something else: take it from a copy."
        ) from error


def _parsed(blob: bytes) -> Container:
    if len(blob) < 8:
        raise ValueError("shorter than its own length field")
    length = int.from_bytes(blob[:8], "little")
    if length > min(len(blob) - 8, _HEADER_LIMIT):
        raise ValueError("the header is longer than the file")
    header = json.loads(blob[8 : 8 + length].decode("utf-8"), object_pairs_hook=unique_pairs)
    if not isinstance(header, dict):
        raise TypeError("the header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TypeError("the metadata are not texts")
    data = memoryview(blob)[8 + length :]
    spans: list[tuple[int, int]] = []
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"the entry of {name!r} has other fields")
        name.encode()  # half a surrogate pair is no name
        if type(entry["shape"]) is not list or len(entry["shape"]) > _MOST_AXES:
            raise ValueError(f"the shape of {name!r} is not a list of few sizes")
        shape = tuple(_count(n) for n in entry["shape"])
        begin, end = (_count(n) for n in entry["data_offsets"])
        if end > len(data) or end - begin != math.prod(shape) * _SIZES[entry["dtype"]]:
            raise ValueError(f"the offsets of {name!r} do not fit its shape")
        spans.append((begin, end))
        tensors[name] = StoredTensor(dtype=entry["dtype"], shape=shape, data=data[begin:end])
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise ValueError("tensors overlap, or leave a gap")
        at = end
    if at != len(data):
        raise ValueError("bytes follow the last tensor")
    return Container(tensors=tensors, metadata=metadata)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("a size or offset is not a count")
    return value


def tensor_digest(name: str, dtype: str, shape: Sequence[int], data: bytes | memoryview) -> str:
    """Digest one tensor by name, dtype (as safetensors writes it), shape and bytes."""
    written = json.dumps(list(shape), separators=(",", ":"))
    head = b"\0".join([b"expunge-tensor-v1", name.encode(), dtype.encode(), written.encode(), b""])
    hashed = hashlib.sha256(head)
    hashed.update(data)
    return hashed.hexdigest()


def tensor_digests(blob: bytes) -> dict[str, str]:
    """Digest every tensor of a safetensors file by name; raises InputError for another file."""
    tensors = parse_container(blob).tensors
    return {name: tensor_digest(name, t.dtype, t.shape, t.data) for name, t in tensors.items()}


def read_tensors(blob: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as arrays that view its bytes.

    Those whose dtype numpy lacks (bfloat16, 8-bit floats) are left out. Raises InputError.
    """
    found = parse_container(blob).tensors
    try:
        return {
            name: np.frombuffer(t.data, dtype=_NUMPY[t.dtype]).reshape(t.shape)
            for name, t in found.items()
            if t.dtype in _NUMPY
        }
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"Expected tensors of sizes that an array can have, but reading one raised {error}. "
            "The file is damaged: take it from a copy."
        ) from error


def record_commitment(salt: str, identifier: str, label: int, row: NDArray[np.float32]) -> str:
    """Commit to a record: its id, label and float32 row of shape (d,), under a salt of 64 hex."""
    body = _salted(salt) + _sized(identifier.encode()) + label.to_bytes(8, "big")
    return _sha(b"expunge-record-v1\0" + body + _sized(row.astype("<f4").tobytes()))


def target_commitment(salt: str, target: NDArray[np.float64]) -> str:
    """Commit to the target logits (K,) of a record, in float64."""
    return _sha(b"expunge-target-v1\0" + _salted(salt) + _sized(target.astype("<f8").tobytes()))


def witnesses_commitment(salt: str, content: bytes) -> str:
    """Commit to the bytes of private/witnesses.json: without the salt they could be guessed."""
    return _sha(b"expunge-witnesses-v1\0" + _salted(salt) + _sized(content))


def merkle_root(salt: str, rows: NDArray[np.float32]) -> str:
    """The Merkle root over salted rows (n, d); an odd node goes up as it is."""
    plain = np.ascontiguousarray(rows, dtype="<f4")
    start = hashlib.sha256(b"\0" + _salted(salt))
    level = []
    for row in plain:
        leaf = start.copy()
        leaf.update(row)
        level.append(leaf.digest())
    if not level:
        return _sha(b"")
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + odd
    return level[0].hex()


def _salted(salt: str) -> bytes:
    raw = bytes.fromhex(salt)
    if len(raw) != 32 or raw.hex() != salt:
        raise InputError(
            f"Expected a salt of 64 lower-case hex digits, got {len(salt)} characters. Draw it "
            "with `secrets.token_hex(32)`."
        )
    return raw


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(8, "big") + content


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
