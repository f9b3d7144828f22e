"""Names of checkpoints: prefixes come off where that fits exactly, nothing is guessed."""

import pytest
import torch
from torch import nn

import expunge
from expunge.errors import ModelError
from expunge.network.naming import fitted, nearest_names
from expunge.network.weights import load_weights

OWN = ("0.weight", "0.bias", "2.weight")


def _state(*names):
    return {name: torch.full((1,), float(i)) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: f"module.{n}",
        lambda n: f"_orig_mod.{n}",
        lambda n: f"_module.{n}",
        lambda n: f"model.{n}",
        lambda n: f"net.{n}",
        lambda n: f"model.net._orig_mod.{n}",
        lambda n: n.replace("0.", "0.module."),
        lambda n: n.replace("2.", "2._orig_mod."),
    ],
)
def test_what_wrappers_leave_comes_off(rename):
    found = fitted(OWN, _state(*map(rename, OWN)))
    assert {n: float(t) for n, t in found.state.items()} == {n: i for i, n in enumerate(OWN)}
    assert "renamed to the model's names" in found.notes[0]


def test_a_prefix_of_the_model_itself_is_put_on():
    own = [f"net.{n}" for n in OWN]
    assert list(fitted(own, _state(*OWN)).state) == own


def test_names_that_fit_stay_and_nothing_is_said():
    found = fitted(OWN, _state(*OWN))
    assert (list(found.state), found.notes) == (list(OWN), ())


def test_a_model_with_parts_called_so_keeps_them_apart():
    own = ("model.weight", "net.weight")
    found = fitted(own, _state("module.net.weight", "module.model.weight"))
    assert {n: float(t) for n, t in found.state.items()} == {"net.weight": 0, "model.weight": 1}


def test_nothing_is_guessed_where_two_entries_would_get_one_name():
    state = _state("model.0.weight", "net.0.weight")
    assert fitted(("0.weight",), state).state.keys() == state.keys()


def test_training_entries_are_left_out_and_listed():
    names = [f"module.{n}" for n in OWN]
    found = fitted(OWN, _state(*names, "n_averaged", "temperature"))
    assert list(found.state) == list(OWN)
    assert found.notes[1] == "left out, no part of the model: n_averaged, temperature"
    found = fitted(OWN, _state(*OWN, "criterion.weight"))
    assert found.notes == ("left out, no part of the model: criterion.weight",)


def test_parts_of_a_larger_model_are_not_left_out():
    assert "2.bias" in fitted(OWN, _state(*OWN, "2.bias")).state
    assert "extra.weight" in fitted(OWN, _state(*OWN, "extra.weight")).state
    state = _state(*(f"model.{n}" for n in (*OWN, "4.weight")))
    assert "model.4.weight" in fitted(OWN, state).state
    own = ("loss.weight", "0.weight")
    assert "loss.bias" in fitted(own, _state(*own, "loss.bias")).state


def test_nearest_names():
    assert nearest_names("fc.weight", ["module.fc.weights", "conv.bias"]) == "module.fc.weights"
    assert nearest_names("fc.weight", ["zzz"]) is None


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("gone", ["a.weight", "b.weight"])
def test_names_that_the_model_ties_are_filled(gone):
    state = {n: torch.full_like(t, 7.0) for n, t in Tied().state_dict().items() if n != gone}
    model = load_weights(Tied(), state, source="w")
    assert model.a.weight is model.b.weight
    assert bool((model.a.weight == 7).all())
    with pytest.raises(ModelError, match=r"1 missing \(b.bias\)"):
        load_weights(Tied(), {n: t for n, t in state.items() if n != "b.bias"}, source="w")


def test_lazy_layers_are_refused_by_name_where_no_row_is_at_hand():
    lazy = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"lazy layer '0', which has seen no row\. Let"):
        load_weights(lazy, {}, source="w")
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    task = expunge.forget_classes((x, y), {1}, ids=range(40))
    with pytest.raises(ModelError, match=r"lazy layer '0'.*Run one batch through it first"):
        expunge.unlearn(lazy, expunge.MaskClass(), task, seed=0)
    lazy.eval()(x[:2])
    assert expunge.unlearn(lazy, expunge.MaskClass(), task, seed=0).record.cost.parameters_changed
