"""Certificates of version 1 verify for ever: the stored files, byte for byte."""

import hashlib
from pathlib import Path

import pytest

from expunge.certificate import payload_digest, read_evidence, verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "certificate-v1"
RUN, TRUST = GOLDEN / "run", GOLDEN / "signer.pub.pem"
CERTIFICATE = "50ee41938539f8f77959ae77d14d02d09a93bb1231d3f311ebb5a24c23647625"
PAYLOAD = "128c43554b18b8769f0e3228de5ba1d5ae73ee19fe0cdfe0d8581c443f9804a2"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"role": "public"},
        {"base": GOLDEN / "base.safetensors"},
        *({"role": "holder", "record": RUN / "private" / "holders" / f"{i}.zip"} for i in range(3)),
    ],
)
def test_the_golden_run_verifies(options):
    found = verify(RUN, trust=TRUST, **options)
    assert [claim for claim in found.claims if claim.status != "verified"] == []
    assert found.exit_code == 0


def test_the_golden_run_reads_back():
    evidence = read_evidence(RUN)
    assert [record.claim for record in evidence.records] == ["unseen", "margin", "mispredict"]
    assert [e.reason for e in evidence.entangled] == ["identical", "hull", "rounding"]
    assert payload_digest(RUN) == PAYLOAD


def test_the_golden_files_are_the_stored_ones():
    content = (RUN / "certificate.dsse.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == CERTIFICATE
