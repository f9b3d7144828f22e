"""What stands beside the claims of a certificate: how far they reach, and how the run ended."""

import json
import shutil
from pathlib import Path

import pytest

from expunge.certificate import verify
from expunge.certificate.run_record import UNREADABLE, outcome_beside, outcome_in_words
from expunge.certificate.wording import STORED_ROWS
from expunge.records import Outcome

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RUNS = GOLDEN / "runs-v1"


def test_a_claim_about_records_is_for_the_stored_rows_and_one_about_a_class_for_all():
    assert verify(RUNS / "prune-gated").reach == STORED_ROWS
    assert verify(GOLDEN / "certificate-v1" / "run").reach == STORED_ROWS
    assert verify(RUNS / "prune-class").reach is None


@pytest.mark.parametrize("name", ["prune-auto", "prune-class", "prune-gated"])
def test_the_outcome_is_that_of_the_record_and_no_claim(name, tmp_path):
    run = shutil.copytree(RUNS / name, tmp_path / "run")
    stored = json.loads((run / "record.json").read_text())["outcome"]["outcome"]
    with_it = verify(run)
    assert with_it.outcome == stored
    (run / "record.json").unlink()
    without = verify(run)
    assert without.outcome is None
    assert (without.claims, without.exit_code) == (with_it.claims, with_it.exit_code)


def test_a_record_that_cannot_be_read_changes_no_claim(tmp_path):
    run = shutil.copytree(RUNS / "prune-gated", tmp_path / "run")
    claims = verify(run).claims
    for content in (b"{}", b"\xff", b'{"version": 99}'):
        (run / "record.json").write_bytes(content)
        found = verify(run)
        assert (found.outcome, found.claims) == (UNREADABLE, claims)
    assert "how the run ended is not known" in outcome_in_words(UNREADABLE)
    assert outcome_beside(tmp_path) is None


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_words_and_those_without_certificate_do_not_fit(outcome):
    said = outcome_in_words(outcome.value)
    assert outcome.value in said
    assert ("no claim of the certificate" in said) is outcome.accepted
    assert ("no certificate is written" in said) is not outcome.accepted
