"""Certificates of version 1 verify for ever: the stored files, byte for byte."""

import hashlib
from pathlib import Path

import pytest

from expunge.certificate import payload_digest, read_evidence, verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "certificate-v1"
RUN, TRUST = GOLDEN / "run", GOLDEN / "signer.pub.pem"
CERTIFICATE = "55b0cd3295e68b20747cb0643d1bfb6e047e8916fb51b4a94400795864f717b7"
PAYLOAD = "5b3cc99193e2981e151a2c1ce6be67d1301adc0322c49358ffcc90165281b4a9"


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
