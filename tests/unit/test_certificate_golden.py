"""Certificates of version 1 verify for ever: the stored files, byte for byte."""

import hashlib
from pathlib import Path

import pytest

from expunge.certificate import payload_digest, read_evidence, verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "certificate-v1"
RUN, TRUST = GOLDEN / "run", GOLDEN / "signer.pub.pem"
CERTIFICATE = "c7d3435587f0e5715e88cb2ba487c2079897da6272f32d86af5fb508b5e84924"
PAYLOAD = "07fa8a0f88454ace59fa4d4dc0c234d66194aed0af2115598e783b98526f1e4b"


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
