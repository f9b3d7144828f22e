"""The training loop: deterministic, schedules as stated, failures named."""

import pytest
import torch
from torch import nn

import expunge
from expunge.data.views import as_rows
from expunge.errors import InputError, MethodError
from expunge.network.state import digest_of, state_of
from expunge.testing import toy
from expunge.training import Recipe, descend

CPU = torch.device("cpu")


def _fit(recipe, seed=0, model=None, data=None):
    made = toy("cnn")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return recipe(
            model or made.factory(),
            made.train if data is None else data,
            generator=torch.Generator().manual_seed(seed),
            device=CPU,
        )


def test_same_seed_same_bytes_and_eval_mode():
    first, second = (_fit(Recipe(epochs=2, batch_size=16)) for _ in range(2))
    assert digest_of(state_of(first)) == digest_of(state_of(second))
    assert digest_of(state_of(_fit(Recipe(epochs=2, batch_size=16), seed=1))) != digest_of(
        state_of(first)
    )
    assert not any(m.training for m in first.modules())
    assert all(p.grad is None for p in first.parameters())


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_every_schedule_learns(schedule):
    losses = []
    made = toy("mlp")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        descend(
            made.factory(),
            made.train,
            Recipe(epochs=6, batch_size=32, schedule=schedule),
            generator=torch.Generator().manual_seed(0),
            device=CPU,
            on_epoch=lambda _epoch, loss: losses.append(loss),
        )
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]


def test_plain_step_is_sgd_by_hand():
    x, y = torch.tensor([[1.0, -2.0], [0.5, 1.0]]), torch.tensor([0, 1])
    model = nn.Linear(2, 2)
    weight = model.weight.detach().clone().requires_grad_(True)
    bias = model.bias.detach().clone().requires_grad_(True)
    torch.nn.functional.cross_entropy(x @ weight.T + bias, y).backward()
    recipe = Recipe(epochs=1, lr=0.3, momentum=0.0, weight_decay=0.0, schedule="constant")
    _fit(recipe, model=model, data=(x, y))
    torch.testing.assert_close(model.weight.detach(), (weight - 0.3 * weight.grad).detach())
    torch.testing.assert_close(model.bias.detach(), (bias - 0.3 * bias.grad).detach())


def test_frozen_parameters_stay():
    model = toy("mlp").trained()
    model.body[0].weight.requires_grad_(False)
    before = model.body[0].weight.clone()
    _fit(Recipe(epochs=1), model=model, data=toy("mlp").train)
    assert torch.equal(model.body[0].weight, before)


def test_a_last_batch_of_one_does_not_break_batch_norm():
    made = toy("cnn")
    data = (made.train.inputs["x"][:33], made.train.targets[:33])
    _fit(Recipe(epochs=1, batch_size=16), data=data)


def test_augmentation_draws_from_the_generator():
    def shift(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)

    recipe = Recipe(epochs=1, transform=shift)
    assert digest_of(state_of(_fit(recipe))) == digest_of(state_of(_fit(recipe)))
    assert digest_of(state_of(_fit(recipe))) != digest_of(state_of(_fit(Recipe(epochs=1))))


def test_unknown_schedule_is_refused():
    with pytest.raises(InputError, match='"constant", "cosine" or "step", got \'warm\''):
        _fit(Recipe(schedule="warm"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, "`epochs` to be an integer from 1, got 0."),
        ({"epochs": 1.5}, "`epochs` to be an integer from 1, got 1.5."),
        ({"batch_size": 0}, "`batch_size` to be an integer from 1, got 0."),
        ({"lr": 0.0}, "`lr` to be a number above 0, got 0.0."),
        ({"lr": float("nan")}, "`lr` to be a number above 0, got nan."),
        ({"momentum": -0.1}, "`momentum` to be a number from 0, got -0.1."),
        ({"weight_decay": -1e-4}, "`weight_decay` to be a number from 0, got -0.0001."),
    ],
    ids=repr,
)
def test_a_recipe_that_cannot_be_followed_is_refused_before_training(fields, words):
    model = toy("cnn").trained()
    before = digest_of(state_of(model))
    with pytest.raises(InputError) as caught:
        _fit(Recipe(**fields), model=model)
    assert words in str(caught.value)
    assert digest_of(state_of(model)) == before


def test_no_rows_to_train_on_are_refused():
    nothing = as_rows(toy("cnn").train).select(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match="at least one row to train on, got none"):
        _fit(Recipe(epochs=1), data=nothing)


def test_divergence_is_named():
    with pytest.raises(MethodError, match=r"finite training loss, got .* in epoch"):
        _fit(
            Recipe(epochs=8, lr=1e6, weight_decay=0.0),
            data=toy("mlp").train,
            model=toy("mlp").factory(),
        )


def test_a_recipe_that_cannot_be_one_is_refused_before_any_copy(monkeypatch):
    made = toy("mlp")
    model = made.trained()
    training = expunge.Training(made.factory, Recipe(lr=-1.0))
    task = made.absent(1, training=training)
    monkeypatch.setattr("copy.deepcopy", lambda _: pytest.fail("the model was copied"))
    with pytest.raises(InputError, match=r"Expected `lr` to be a number above 0, got -1\.0"):
        expunge.unlearn(model, expunge.Retrain(), task, seed=0)
