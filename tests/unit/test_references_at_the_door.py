"""References that are given to `unlearn`: refused, shown to be independent, or left out."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scripted import info as info_of
from torch import nn

from expunge import MaskClass, Recipe, Retrain, audit, forget_classes, unlearn
from expunge.errors import ModelError
from expunge.methods import Method
from expunge.records import MethodInfo, Outcome
from expunge.testing import toy

MADE = toy("mlp")
CPU = torch.device("cpu")


def _trained(*without, seed):
    """A net of the toy's, trained anew without these classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MADE.factory()
    x, y = MADE.train.inputs["x"], MADE.train.targets
    stays = ~torch.isin(y, torch.tensor(without))
    recipe = Recipe(epochs=40, batch_size=32, lr=0.1)
    generator = torch.Generator().manual_seed(seed)
    return recipe(model, (x[stays], y[stays]), generator=generator, device=CPU).eval()


@pytest.fixture(scope="module")
def honest():
    return [_trained(1, seed=seed) for seed in (21, 22, 23)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaging(Method):
    """Masks the class of the request, and class 2 beside it."""

    info: ClassVar[MethodInfo] = info_of()

    def apply(self, model, task, run):
        with torch.no_grad():
            model.head.bias[[*task.classes, 2]] = -100.0
        return model


def _masked_net(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MADE.factory()
    with torch.no_grad():
        model.head.bias[1] = -100.0
    return model


def test_honest_references_take_part(honest):
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=honest)
    assert result.outcome.outcome is Outcome.DONE
    assert "others_against_references" in result.outcome.figures
    assert not any("unverified" in note for note in result.record.notes)


def test_untrained_nets_excuse_no_damage():
    nets = [_masked_net(seed) for seed in (1, 2, 3)]
    result = unlearn(MADE.trained(), Damaging(), MADE.absent(1), seed=0, references=nets)
    assert result.outcome.outcome is Outcome.WRECKED
    assert any("3 of 3 references are not shown" in note for note in result.record.notes)
    assert audit(result, MADE.absent(1), references=nets).level == "unverified"


def test_initial_weights_that_are_the_trained_ones_show_nothing():
    original = MADE.trained()
    copies = []
    for shift in (0.0, 1e-3, 2e-3):
        model = copy.deepcopy(original)
        with torch.no_grad():
            model.head.bias[[1, 2]] = -100.0
            model.head.bias[0] += shift
        copies.append(model)
    result = unlearn(
        original,
        Damaging(),
        MADE.absent(1),
        seed=0,
        references=copies,
        initial=original.state_dict(),
    )
    assert result.outcome.outcome is Outcome.WRECKED
    assert any("3 of 3 references" in note for note in result.record.notes)


def test_one_model_with_hairs_is_one_reference(honest):
    hairs = []
    for step in (0.0, 1e-6, 2e-6):
        model = copy.deepcopy(honest[0])
        with torch.no_grad():
            model.head.weight[0, 0] += step
        hairs.append(model)
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=hairs)
    assert any("2 of 3 references are not shown" in note for note in result.record.notes)
    assert "others_against_references" not in result.outcome.figures
    report = audit(result, MADE.absent(1), references=hairs)
    assert [one.level for one in report.standing] == ["C1", "unverified", "unverified"]


def test_a_reference_that_knows_a_class_of_an_earlier_request_is_refused():
    first = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0)
    knows = _trained(1, seed=31)
    words = r"without class \[3\] of an earlier request too, but it recognises"
    with pytest.raises(ModelError, match=words):
        unlearn(first, MaskClass(), MADE.absent(1), seed=0, references=[knows])
    second = unlearn(first, MaskClass(), MADE.absent(1), seed=0)
    with pytest.raises(ModelError, match=words):
        audit(second, MADE.absent(1), references=[knows])
    without = _trained(1, 3, seed=32)
    assert unlearn(first, MaskClass(), MADE.absent(1), seed=0, references=[without])


def test_references_that_do_not_fit_the_rows_are_refused_before_work():
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0)
    for odd, words in (
        (nn.Linear(11, 5), "run on rows of reference 0, forget"),
        (nn.Linear(12, 4), r"reference 0 to give 5 logits a row as the model does, got 4"),
    ):
        with pytest.raises(ModelError, match=words):
            unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=[odd])
        with pytest.raises(ModelError, match=words):
            audit(result, MADE.absent(1), references=[odd])
    with pytest.raises(ModelError, match="`references` to be models or results of `Retrain`, got"):
        unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=["weights"])


def test_references_are_left_as_they_were(honest):
    model = copy.deepcopy(honest[0]).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=[model])
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_runs_of_retrain_may_stand_as_references(honest):
    runs = [unlearn(MADE.trained(), Retrain(), MADE.absent(1), seed=s) for s in (41, 42, 43)]
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=runs)
    assert result.outcome.outcome is Outcome.DONE
    other = forget_classes(
        (MADE.train.inputs["x"], MADE.train.targets),
        {2},
        holdout=(MADE.holdout.inputs["x"], MADE.holdout.targets),
    )
    with pytest.raises(ModelError, match=r"without classes \[2\]"):
        unlearn(MADE.trained(), MaskClass(), other, seed=0, references=runs)


def test_the_original_is_no_reference_at_the_door():
    with pytest.raises(ModelError, match="got the original model itself"):
        unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0, references=[MADE.trained()])
