"""Run folders of record version 1 load for ever: every kind of model, also to go on from."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch

import expunge
from expunge.certificate import verify
from expunge.data.views import as_rows
from expunge.judging.split import tune_and_judge
from expunge.network.passes import logits_of
from expunge.network.state import digest_of, state_of
from expunge.records import RECORD_VERSION
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


@pytest.mark.parametrize("name", RUNS)
def test_what_an_old_record_claims_is_read_as_its_ceiling(name):
    stored = json.loads((GOLDEN / name / "record.json").read_text())
    record = _loaded(name).record
    assert (record.version, record.ceiling) == (1, tuple(stored["claims"]))
    assert set(record.verdicts.values()) == {"not measured"}
    assert (record.repeats_count, record.twins_count) == (None, None)


def test_an_old_run_saved_again_is_of_the_version_of_today(tmp_path):
    path = expunge.save_run(_loaded("mu-mis"), tmp_path / "again")
    stored = json.loads((path / "record.json").read_text())
    assert (stored["version"], "claims" in stored) == (RECORD_VERSION, False)
    again = expunge.load_run(path, factory=MADE.factory)
    assert (again.split_seed, again.record.ceiling) == (3, _loaded("mu-mis").record.ceiling)


def test_a_sequence_keeps_the_seeded_split_that_it_began_with(tmp_path):
    run = _loaded("mu-mis")
    judge = tune_and_judge(as_rows(MADE.holdout), [], 3).judge
    then = expunge.unlearn(run, expunge.MaskClass(), MADE.absent(1), seed=8)
    assert (run.split_seed, then.split_seed, then.record.version) == (3, 3, RECORD_VERSION)
    assert then.read.judge.ids == judge.ids
    path = expunge.save_run(then, tmp_path / "then")
    assert tomllib.loads((path / "job.toml").read_text())["split_seed"] == 3
    assert expunge.load_run(path, factory=MADE.factory).split_seed == 3
    shutil.rmtree(path / "private")
    assert expunge.load_run(path, factory=MADE.factory).split_seed == 3
    fresh = expunge.unlearn(MADE.trained(), expunge.MaskClass(), MADE.absent(1), seed=3)
    assert fresh.split_seed is None
    assert fresh.read.judge.ids != judge.ids


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
