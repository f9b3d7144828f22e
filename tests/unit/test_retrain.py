"""A factory that gives the trained weights is no retraining."""

import pytest
import torch
from torch import nn

import expunge
from expunge import MaskClass, Prune, Recipe, Retrain, Training, unlearn
from expunge.errors import InputError, ModelError
from expunge.network.state import digest_of, state_of
from expunge.records import Outcome
from expunge.testing import toy
from expunge.unlearning.door import rehearse

MADE = toy("mlp")
SHORT = Recipe(epochs=1, batch_size=32, lr=0.05)


def _task(factory, fit=SHORT, **given):
    return MADE.absent(3, training=Training(factory, fit), **given)


def _never(*_args, **_kwargs):
    pytest.fail("the training was begun")


def _new_head(model):
    model.head = nn.Linear(20, 5)
    return model


class Renamed(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


REFUSED = {
    "the trained model": (MADE.trained, "the given model's own weights"),
    "under other names": (lambda: Renamed(MADE.trained()), "the given model's own weights"),
    "with a new head": (lambda: _new_head(MADE.trained()), "its backbone under a new head"),
}


@pytest.mark.parametrize(("factory", "words"), REFUSED.values(), ids=REFUSED)
def test_a_factory_that_gives_what_was_trained_is_refused(factory, words):
    model, task = MADE.trained(), _task(factory, _never)
    for attempt in (unlearn, rehearse):
        with pytest.raises(InputError, match=words) as caught:
            attempt(model, Retrain(), task, seed=0)
        assert "from_pretrained(my model)" in str(caught.value)
        assert "Build it from its configuration" in str(caught.value)


def test_a_patched_model_hides_nothing():
    gated = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    regions = unlearn(MADE.trained(), Prune.as_published(), MADE.unseen(0), seed=0)
    for earlier in (gated, regions):
        with pytest.raises(InputError, match=r"own weights|backbone"):
            unlearn(earlier, Retrain(), _task(MADE.trained, _never), seed=0)


def test_other_methods_do_not_ask_the_factory():
    assert unlearn(MADE.trained(), MaskClass(), _task(MADE.trained), seed=0).outcome


def _frozen(model):
    model.body.requires_grad_(False)
    return model


def test_a_frozen_backbone_may_be_shared_and_is_noted():
    def factory():
        return _frozen(_new_head(MADE.trained()))

    result = unlearn(_frozen(MADE.trained()), Retrain(), _task(factory), seed=0)
    notes = [n for n in result.record.notes if "backbone, which is frozen there" in n]
    assert len(notes) == 1
    assert torch.equal(result.model.body[0].weight, MADE.trained().body[0].weight)
    with pytest.raises(InputError, match="own weights"):
        unlearn(_frozen(MADE.trained()), Retrain(), _task(MADE.trained), seed=0)
    inference = MADE.trained().requires_grad_(False)
    with pytest.raises(InputError, match="its backbone"):
        unlearn(inference, Retrain(), _task(factory), seed=0)


def test_a_factory_with_a_seed_of_its_own_or_a_pretrained_backbone_passes():
    def seeded():
        torch.manual_seed(7)
        return MADE.factory()

    def pretrained():
        return _new_head(SHORT(MADE.factory(), MADE.holdout, generator=_generator(), device=_CPU))

    for factory in (seeded, pretrained):
        before = torch.get_rng_state()
        result = unlearn(MADE.trained(), Retrain(), _task(factory), seed=0)
        assert torch.equal(torch.get_rng_state(), before)
        assert not any("backbone" in note for note in result.record.notes)


_CPU = torch.device("cpu")


def _generator():
    return torch.Generator().manual_seed(0)


def test_the_factory_is_called_once_more_and_changes_no_byte():
    calls = []

    def factory():
        calls.append(1)
        return MADE.factory()

    one = unlearn(MADE.trained(), Retrain(), _task(factory), seed=3)
    assert len(calls) == 2
    torch.manual_seed(99)
    two = unlearn(MADE.trained(), Retrain(), _task(factory), seed=3)
    assert one.record.digest_after == two.record.digest_after


def test_a_factory_that_gives_the_trained_model_later_is_found_out():
    given = [MADE.factory, MADE.trained]
    with pytest.raises(InputError, match="own weights"):
        unlearn(MADE.trained(), Retrain(), _task(lambda: given.pop(0)(), _never), seed=0)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (lambda: 1 / 0, "`training.factory` to return an nn.Module, but it raised ZeroDivision"),
        (lambda: None, "`training.factory` to return an nn.Module, got NoneType"),
    ],
)
def test_a_factory_that_gives_no_model_is_a_typed_error(factory, words):
    model = MADE.trained()
    digest = digest_of(state_of(model))
    with pytest.raises(ModelError, match=words):
        unlearn(model, Retrain(), _task(factory, _never), seed=0)
    assert digest_of(state_of(model)) == digest


def test_a_model_that_is_all_head_is_compared_whole():
    linear = nn.Linear(12, 5)
    train = (MADE.train.inputs["x"], MADE.train.targets)
    task = expunge.forget_classes(
        train, {3}, training=Training(lambda: nn.Linear(12, 5), MADE.recipe)
    )
    assert unlearn(linear, Retrain(), task, seed=0).outcome.outcome is not Outcome.NO_OP
