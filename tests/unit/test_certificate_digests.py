"""Digests, commitments and the container, against slow versions written from the page."""

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from expunge.certificate.digests import (
    merkle_root,
    parse_container,
    read_tensors,
    record_commitment,
    target_commitment,
    tensor_digest,
    tensor_digests,
)
from expunge.errors import InputError

SALT = "ab" * 32


def slow_root(salt, rows):
    def over(level):
        if len(level) == 1:
            return level[0]
        joined = []
        for i in range(0, len(level), 2):
            pair = level[i : i + 2]
            joined.append(
                hashlib.sha256(b"\x01" + b"".join(pair)).digest() if len(pair) == 2 else pair[0]
            )
        return over(joined)

    if not len(rows):
        return hashlib.sha256(b"").hexdigest()
    leaves = [
        hashlib.sha256(
            b"\x00" + bytes.fromhex(salt) + b"".join(struct.pack("<f", x) for x in row)
        ).digest()
        for row in rows
    ]
    return over(leaves).hex()


@given(st.integers(0, 18), st.integers(1, 4))
def test_merkle_root_is_that_of_the_page(count, size):
    rows = np.random.default_rng(count).standard_normal((count, size)).astype(np.float32)
    assert merkle_root(SALT, rows) == slow_root(SALT, rows)


def test_merkle_root_sees_order_salt_and_every_bit():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    other = rows.copy()
    other[2, 1] = np.nextafter(other[2, 1], np.float32(9))
    roots = {merkle_root(SALT, r) for r in (rows, rows[::-1], other, rows[:3])}
    assert len(roots | {merkle_root("cd" * 32, rows)}) == 5


def test_commitments_are_those_of_the_page():
    row = np.array([1.5, -0.0], dtype=np.float32)
    identifier = "Zoë".encode()
    content = b"expunge-record-v1\0" + bytes.fromhex(SALT)
    content += struct.pack(">Q", len(identifier)) + identifier + struct.pack(">Q", 3)
    content += struct.pack(">Q", 8) + struct.pack("<ff", 1.5, -0.0)
    assert record_commitment(SALT, "Zoë", 3, row) == hashlib.sha256(content).hexdigest()
    content = b"expunge-target-v1\0" + bytes.fromhex(SALT)
    content += struct.pack(">Q", 16) + struct.pack("<dd", 0.1, 2.0)
    target = np.array([0.1, 2.0])
    assert target_commitment(SALT, target) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("salt", ["", "ab", "AB" * 32, "ab " * 31 + "abcd"])
def test_a_salt_has_one_form(salt):
    with pytest.raises(InputError, match="salt of 64 lower-case hex digits"):
        merkle_root(salt, np.zeros((1, 1), np.float32))


def test_tensor_digests_are_those_of_the_page_and_of_the_library():
    tensors = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "count": np.array(3, dtype=np.int64),
        "none": np.zeros((0, 4), np.float32),
        "half": np.ones(3, np.float16),
    }
    blob = save(tensors, metadata={"format": "pt"})
    content = b"expunge-tensor-v1\0a.weight\0F32\0[2,3]\0" + tensors["a.weight"].tobytes()
    found = tensor_digests(blob)
    assert found["a.weight"] == hashlib.sha256(content).hexdigest()
    assert found["count"] == tensor_digest("count", "I64", (), tensors["count"].tobytes())
    assert found.keys() == tensors.keys()
    for name, value in read_tensors(blob).items():
        assert value.dtype == tensors[name].dtype
        np.testing.assert_array_equal(value, tensors[name])


def container(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x01\0\0\0\0\0\0\0",
        struct.pack("<Q", 2**63) + b"{}",
        container(b"[]"),
        container(b"\xff\xfe"),
        container(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', b"\0" * 4),
        container({"a": entry(0, 4), "b": entry(0, 4)}, b"\0" * 4),
        container({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12),
        container({"a": entry(0, 4)}, b"\0" * 5),
        container({"a": entry(0, 4)}, b"\0" * 3),
        container({"a": entry(0, 8)}, b"\0" * 8),
        container({"a": entry(0, 4, shape=(True,))}, b"\0" * 4),
        container({"a": entry(0, 4, shape=(-1, -1))}, b"\0" * 4),
        container({"a": entry(0, 4, dtype="F33")}, b"\0" * 4),
        container({"a": {**entry(0, 4), "more": 1}}, b"\0" * 4),
        container({"a": 3}),
        container({"__metadata__": {"a": 1}}),
        container(b"[" * 100_000),
    ],
)
def test_containers_in_any_other_form_are_refused(blob):
    with pytest.raises(InputError, match="Expected a safetensors file"):
        parse_container(blob)
