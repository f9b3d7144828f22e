"""Run folders of record version 1 load for ever: every kind of model, also to go on from."""

import json
from pathlib import Path

import pytest
import torch

import expunge
from expunge.certificate import verify
from expunge.data.views import as_rows
from expunge.network.passes import logits_of
from expunge.network.state import digest_of, state_of
from expunge.testing import toy

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "runs-v1"
MADE = toy("mlp")
RUNS = sorted(path.name for path in GOLDEN.iterdir())
CERTIFIED = ("prune-auto", "prune-class", "prune-gated")


def _loaded(name):
    return expunge.load_run(GOLDEN / name, factory=MADE.factory)


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_loads_with_its_own_weights_and_history(name):
    run = _loaded(name)
    stored = json.loads((GOLDEN / name / "record.json").read_text())
    assert digest_of(state_of(run.model)) == stored["digest_after"]
    assert run.record.settings.keys() == stored["settings"].keys()
    assert run.history_known
    assert len(run.forgotten) == stored["earlier_requests"] + 1
    logits = logits_of(run.model, as_rows(MADE.holdout), batch_size=64, device=torch.device("cpu"))
    assert logits.shape == (len(MADE.holdout), 5)


@pytest.mark.parametrize("name", CERTIFIED)
def test_an_old_certificate_still_verifies(name):
    found = verify(GOLDEN / name)
    assert {claim.status for claim in found.claims if claim.name != "signature"} == {"verified"}


def test_an_old_run_serves_a_further_request():
    run = _loaded("least-squares-removal")
    then = expunge.unlearn(run, expunge.LeastSquaresRemoval(), MADE.absent(1), seed=0)
    assert then.record.earlier_requests == 1
    assert then.outcome.outcome.accepted


def test_old_gates_are_proven_again():
    run = _loaded("prune-gated")
    then = expunge.unlearn(run, expunge.Prune(form="gated"), MADE.unseen(41, 46), seed=0)
    assert {record.request for record in then.evidence.records} == {0, 1}


def test_a_patch_as_published_goes_on():
    run = _loaded("prune-as-published")
    then = expunge.unlearn(run, expunge.Prune.as_published(), MADE.absent(1), seed=0)
    assert then.record.structure == "wraps"
