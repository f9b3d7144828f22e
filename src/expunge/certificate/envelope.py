"""The envelope of a certificate: DSSE with Ed25519, every byte in one possible form.

    signature over PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload

The envelope itself is canonical JSON, base64 is strict (one text for given bytes), and `keyid` is
the SHA-256 of the DER public key. So a flipped byte anywhere is seen.

Reference: https://github.com/secure-systems-lab/dsse, protocol version 1.0.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from expunge.certificate.canonical import canonical, parse_canonical, version_refusal
from expunge.errors import InputError

__all__ = [
    "CERTIFICATE",
    "PAYLOAD_TYPE",
    "Envelope",
    "Signature",
    "is_signed_by",
    "keyid_of",
    "parse_envelope",
    "private_key",
    "public_key",
    "signed",
    "write_envelope",
]

CERTIFICATE = "certificate.dsse.json"
"""The name of a certificate in its run folder."""
PAYLOAD_TYPE = "application/vnd.expunge.certificate.v1+json"
_P = 2**255 - 19
_ORDER_EIGHT = (
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
)
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, *_ORDER_EIGHT})
"""y of the points whose order divides 8, in every encoding, the sign bit aside."""
_OTHER_VERSION = re.compile(r"application/vnd\.expunge\.certificate\.v(\d+)\+json")


@final
@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: `keyid` says whose, `sig` is 64 bytes."""

    keyid: str
    sig: bytes


@final
@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and at most one signature over it."""

    payload: bytes
    signature: Signature | None = None


def parse_envelope(content: bytes) -> Envelope:
    """Read an envelope; raises InputError for any form but the one that Expunge writes."""
    facts = parse_canonical(content, what="a certificate")
    if not isinstance(facts, dict) or facts.keys() != {"payload", "payloadType", "signatures"}:
        raise _malformed("the fields payload, payloadType and signatures")
    found = facts["payloadType"]
    other = _OTHER_VERSION.fullmatch(found) if isinstance(found, str) else None
    if other is not None and found != PAYLOAD_TYPE:
        raise version_refusal("a certificate", other.group(1))
    if found != PAYLOAD_TYPE:
        raise _malformed(f"the payloadType {PAYLOAD_TYPE}")
    entries = facts["signatures"]
    if not isinstance(entries, list) or len(entries) > 1:
        raise _malformed("a list of at most one signature")
    signature = _signature(entries[0]) if entries else None
    return Envelope(_strict_base64(facts["payload"]), signature)


def _signature(entry: Any) -> Signature:
    if not isinstance(entry, dict) or entry.keys() != {"keyid", "sig"}:
        raise _malformed("a signature with the fields keyid and sig")
    if not isinstance(entry["keyid"], str):
        raise _malformed("a keyid that is a text")
    return Signature(entry["keyid"], _strict_base64(entry["sig"]))


def write_envelope(envelope: Envelope) -> bytes:
    """The bytes of an envelope: canonical JSON."""
    one = envelope.signature
    signatures = [] if one is None else [{"keyid": one.keyid, "sig": _base64(one.sig)}]
    payload = _base64(envelope.payload)
    return canonical({"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": signatures})


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _strict_base64(text: object) -> bytes:
    try:
        content = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("strict base64") from error
    if not isinstance(text, str) or _base64(content) != text:
        raise _malformed("strict base64")
    return content


def _malformed(expected: str) -> InputError:
    return InputError(
        f"Expected a certificate envelope with {expected}, got another. The file was changed or "
        "damaged: take it from its origin."
    )


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def keyid_of(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's DER SubjectPublicKeyInfo, in hex."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def signed(envelope: Envelope, key: Ed25519PrivateKey) -> Envelope:
    """The envelope with a signature by `key`."""
    signature = Signature(keyid_of(key.public_key()), key.sign(_encoded(envelope.payload)))
    return replace(envelope, signature=signature)


def is_signed_by(envelope: Envelope, key: Ed25519PublicKey) -> bool:
    """Whether the envelope carries a valid signature by `key`, under its own keyid."""
    if envelope.signature is None or envelope.signature.keyid != keyid_of(key):
        return False
    try:
        key.verify(envelope.signature.sig, _encoded(envelope.payload))
    except InvalidSignature:
        return False
    return True


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a private key; raises InputError for any other kind, or one under a password."""
    try:
        key: object = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key("private", str(error).splitlines()[0] if str(error) else "nothing") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key("private", _kind(key))
    return key


def public_key(pem: bytes) -> Ed25519PublicKey:
    """Read a public key; raises InputError for any other kind."""
    try:
        key: object = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key("public", "a file that holds no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key("public", _kind(key))
    plain = int.from_bytes(key.public_bytes(Encoding.Raw, PublicFormat.Raw), "little")
    if plain % 2**255 in _SMALL_ORDER:
        raise _no_key("public", "one of the few keys under which anybody can sign")
    return key


def _kind(key: object) -> str:
    return type(key).__name__.lstrip("_")


def _no_key(side: str, got: str) -> InputError:
    name = "NAME.key.pem" if side == "private" else "NAME.pub.pem"
    return InputError(
        f"Expected an Ed25519 {side} key in PEM, got {got}. `expunge keygen NAME` makes a pair; "
        f"name its {name} here."
    )
