"""The toys are what the checks assume: learnt, deterministic, untidy where asked."""

import pytest
import torch

from expunge.data.digests import content_digests
from expunge.data.views import as_rows
from expunge.network.passes import logits_of
from expunge.network.state import digest_of, state_of
from expunge.testing import TOYS, toy


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_learnt_and_generalise(name):
    made = toy(name)
    for data in (made.train, made.holdout):
        rows = as_rows(data)
        logits = logits_of(made.trained(), rows, batch_size=64, device=torch.device("cpu"))
        assert (logits.argmax(1) == rows.labels).double().mean() >= 0.95


@pytest.mark.parametrize("name", TOYS)
def test_each_call_gives_a_model_of_its_own_with_the_same_bytes(name):
    first, second = toy(name).trained(), toy(name).trained()
    assert digest_of(state_of(first)) == digest_of(state_of(second))
    next(first.parameters()).data.add_(1.0)
    assert digest_of(state_of(first)) != digest_of(state_of(second))
    assert digest_of(state_of(toy(name).trained())) == digest_of(state_of(second))


@pytest.mark.parametrize("name", TOYS)
def test_holdout_and_training_rows_are_different(name):
    made = toy(name)
    train, holdout = (set(content_digests(as_rows(d))) for d in (made.train, made.holdout))
    assert not train & holdout
    assert len(train) == len(made.train)


def test_untidy_models_have_mixed_modes_and_a_frozen_layer():
    model = toy("cnn").untidy()
    assert len({module.training for module in model.modules()}) == 2
    assert len({p.requires_grad for p in model.parameters()}) == 2


def test_reads_can_be_watched_and_labels_need_none():
    seen = []
    rows = as_rows(toy("mapping").train.watched(seen.append))
    assert seen == []
    rows.batch(torch.tensor([3, 1]))
    assert seen == [3, 1]


def test_what_a_request_is_not_given_is_the_toys_own():
    made = toy("mlp")
    for task in (made.absent(3), made.unseen(0)):
        assert len(task.rows) == len(made.train)
        assert len(task.holdout) == len(made.holdout)
        assert task.training == made.training()
    for task in (
        made.absent(3, holdout=None, training=None),
        made.unseen(0, holdout=None, training=None),
    ):
        assert task.holdout is None
        assert task.training is None


def test_a_watched_toy_is_the_same_toy():
    seen = []
    made = toy("mlp")
    watched = made.watched(seen.append)
    assert watched.absent(3).forget.ids == made.absent(3).forget.ids
    assert seen == []
    assert digest_of(state_of(watched.trained())) == digest_of(state_of(made.trained()))
    watched.train[4]
    assert seen == [4]
