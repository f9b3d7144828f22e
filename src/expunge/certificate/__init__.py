"""Certificates: what a patch proves, written by its maker and checked without torch.

Names are resolved on first use: the checker runs without the writer, and without its packages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.certificate.facts import EntangledEvidence, Evidence, Layer, RecordEvidence
    from expunge.certificate.keys import keygen, sign_run
    from expunge.certificate.statement import DOES_NOT_CLAIM, Statement
    from expunge.certificate.verifier import Claim, Verification, verify
    from expunge.certificate.write import payload_digest, read_evidence, write_certificate

__all__ = [
    "DOES_NOT_CLAIM",
    "Claim",
    "EntangledEvidence",
    "Evidence",
    "Layer",
    "RecordEvidence",
    "Statement",
    "Verification",
    "keygen",
    "payload_digest",
    "read_evidence",
    "sign_run",
    "verify",
    "write_certificate",
]

_HOME = {
    "verifier": ("Claim", "Verification", "verify"),
    "facts": ("EntangledEvidence", "Evidence", "Layer", "RecordEvidence"),
    "keys": ("keygen", "sign_run"),
    "statement": ("DOES_NOT_CLAIM", "Statement"),
    "write": ("payload_digest", "read_evidence", "write_certificate"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"expunge.certificate.{module}"), name)
    raise AttributeError(f"module 'expunge.certificate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
