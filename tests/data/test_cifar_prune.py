"""PRUNE on a public model nobody here trained: records forgotten, everything else untouched."""

import pytest
import torch

import expunge
from expunge.certificate import keygen, sign_run, verify
from expunge.network.passes import logits_of

pytestmark = [pytest.mark.data, pytest.mark.slow]
CPU = torch.device("cpu")
COUNT = 500


@pytest.fixture(scope="module")
def patched(cifar10):
    """500 random records forgotten with the defaults, gated."""
    model, train, test = cifar10
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(100))[:COUNT]
    task = expunge.forget_indices(train, chosen.tolist(), holdout=test)
    return task, expunge.unlearn(model, expunge.Prune(form="gated"), task, seed=0)


def test_the_membership_signal_is_gone_and_the_rest_stays(patched):
    _, result = patched
    figures = result.outcome.figures
    assert result.outcome.outcome.accepted, result.outcome.reason
    assert abs(figures["loss_auc_after"] - 0.5) <= 0.03  # one seed; the benchmark pools five
    assert abs(figures["forget_after"] - figures["others_after"]) <= 3.0
    assert abs(figures["others_change"]) <= 0.1
    assert figures["forget_before"] > 99


def test_hardly_a_record_is_entangled(patched):
    _, result = patched
    assert result.record.log["entangled"][-1] <= 0.005 * COUNT
    assert result.record.log["by_linear_program"][-1] > 0


def test_every_retained_row_keeps_exactly_its_logits(cifar10, patched):
    task, result = patched
    some = task.retain.select(torch.arange(0, len(task.retain), 5))
    before = logits_of(cifar10[0], some, batch_size=500, device=CPU)
    assert torch.equal(before, logits_of(result.model, some, batch_size=500, device=CPU))


def test_the_checker_accepts_the_certificate(patched, tmp_path):
    _, result = patched
    run = expunge.save_run(result, tmp_path / "run")
    keygen(tmp_path / "key")
    sign_run(run, tmp_path / "key.key.pem")
    found = verify(run, trust=tmp_path / "key.pub.pem")
    assert found.exit_code == 0, [(c.name, c.status, c.detail) for c in found.claims]
    added = sum(p.numel() for p in result.model.parameters())
    added -= sum(p.numel() for p in result.original.parameters())
    assert 4 * added <= 1_000_000  # bytes


@pytest.mark.parametrize("label", [1, 3, 5])
def test_a_class_is_gone_and_no_other_row_of_the_head_moves(cifar10, label):
    model, train, test = cifar10
    some = train.select(torch.arange(0, len(train), 10))
    result = expunge.unlearn(
        model, expunge.Prune(), expunge.forget_classes(some, {label}, holdout=test), seed=0
    )
    figures = result.outcome.figures
    assert (figures["forget_after"], figures["judge_class_after"]) == (0.0, 0.0)
    assert figures["others_change"] == 0.0  # against the masked original, hence never below it
    assert figures["others_after"] >= figures["others_before"]
