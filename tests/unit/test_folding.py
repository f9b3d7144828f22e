"""Heads that are no plain linear layer: refused by name, with a cure that is tried here."""

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune as masks

import expunge
from expunge.errors import ModelError
from expunge.network.copying import copied
from expunge.network.heads import find_head, head_at

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "heads.md").read_text()
X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _net(head):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), head).eval()


def _masked(what):
    layer = nn.Linear(8, 4)
    masks.random_unstructured(layer, what, amount=0.5)
    return layer


def _old(name):
    return getattr(nn.utils, name)(nn.Linear(8, 4))


def _new(name):
    return getattr(nn.utils.parametrizations, name)(nn.Linear(8, 4))


DERIVED = {
    "weight_norm, new": (lambda: _new("weight_norm"), r"weight, .* parametrisation \(WeightNorm\)"),
    "spectral_norm, new": (lambda: _new("spectral_norm"), r"parametrisation \(SpectralNorm\)"),
    "orthogonal": (lambda: _new("orthogonal"), r"parametrisation \(Orthogonal\)"),
    "spectral_norm, old": (lambda: _old("spectral_norm"), "each pass by spectral_norm"),
    "mask": (lambda: _masked("weight"), "its weight, .* by a pruning mask"),
    "mask of the bias": (lambda: _masked("bias"), "its bias, .* by a pruning mask"),
}


def _cure(message):
    return re.search(r"plain parameter first: `([^`]+)`", message).group(1)


@pytest.mark.parametrize(("make", "words"), DERIVED.values(), ids=DERIVED)
def test_a_derived_weight_is_refused_with_a_cure_that_works(make, words):
    model = _net(make())
    with torch.no_grad():
        before = model(X)
    with pytest.raises(ModelError, match=words) as refusal:
        find_head(model, X)
    exec(_cure(str(refusal.value)), {"torch": torch, "model": model})
    head = find_head(model, X)
    assert (head.name, head.kind) == ("2", "plain")
    torch.testing.assert_close(model(X), before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_the_older_weight_norm_is_refused_with_a_cure_that_works():
    model = _net(_old("weight_norm"))
    with pytest.raises(ModelError, match="each pass by weight_norm: an edit") as refusal:
        find_head(model, X)
    exec(_cure(str(refusal.value)), {"torch": torch, "model": model})
    assert find_head(model, X).name == "2"


@pytest.mark.parametrize("kind", ["spectral_norm", "mask"])
def test_methods_that_edit_the_head_refuse_and_others_serve(kind):
    model = _net(_old("spectral_norm") if kind == "spectral_norm" else _masked("weight"))
    model.train()(X)  # the weight now carries a graph
    x = torch.randn(40, 6)
    task = expunge.forget_classes((x, torch.arange(40) % 4), {1}, ids=range(40))
    with pytest.raises(ModelError, match="to own its weight, got one that is made anew"):
        expunge.unlearn(model, expunge.MaskClass(), task, seed=0)
    result = expunge.unlearn(model, expunge.MuMis(most_steps=2), task, seed=0)
    assert result.record.cost.parameters_changed > 0


def test_a_copy_of_a_weight_with_a_graph_gives_the_same():
    model = _net(_masked("weight")).train()
    model(X)
    assert not model[2].weight.is_leaf
    torch.testing.assert_close(copied(model)(X), model(X))


class Plain(nn.Linear):
    """A subclass that does what its parent does."""


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_subclass_that_gives_its_own_product_is_plain():
    model = _net(Plain(8, 4))
    assert find_head(model, X) == head_at("2", model[2])
    with pytest.raises(ModelError, match=r"class Doubled gives something else"):
        find_head(_net(Doubled(8, 4)), X)


class Unit(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=1)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.out = nn.Linear(8, 4)


class Temperature(Base):
    temperature = 2.5

    def forward(self, x):
        return self.out(self.body(x)) / self.temperature


class LogSoftmax(Base):
    def forward(self, x):
        return self.out(self.body(x)).log_softmax(1)


class Cosine(Base):
    scale = 16.0

    def forward(self, x):
        return self.scale * F.linear(
            F.normalize(self.body(x), dim=1), F.normalize(self.out.weight, dim=1)
        )


class Averaged(Base):
    def __init__(self):
        super().__init__()
        self.second = nn.Linear(8, 4)

    def forward(self, x):
        h = self.body(x)
        return (self.out(h) + self.second(h)) / 2


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.ConvTranspose2d(6, 8, 3))
        self.out = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.out(self.body(x)).mean((2, 3))


FOLDS = {
    "A scale or a temperature": (Temperature, "The logits are 0.4 times the output of the layer"),
    "A softmax or log-softmax": (LogSoftmax, "The logits are log_softmax of the layer 'out'"),
    "Normalised features": (Cosine, "anything else"),
    "Two averaged heads": (Averaged, "the mean of the layers 'out' and 'second'"),
    "A 1×1 convolution": (Convolution, "'out' is a 1×1 convolution"),
}


@pytest.mark.parametrize("case", FOLDS)
def test_the_lines_of_the_page_give_the_same_answers_with_a_head(case):
    make, words = FOLDS[case]
    model = make().eval()
    with pytest.raises(ModelError, match=f"{words}.*the lines to write: docs/heads.md"):
        find_head(model, X)
    lines = re.search(rf"\*\*{case}.*?```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    assert 1 <= len(lines.splitlines()) <= 5
    names = {"torch": torch, "nn": nn, "F": F, "copy": copy, "Unit": Unit, "model": model}
    exec(lines, names)
    plain = names["plain"]
    assert find_head(plain, X).kind == "plain"
    with torch.no_grad():
        torch.testing.assert_close(plain(X).softmax(1), model(X).softmax(1))


def test_a_softmax_is_named():
    class Softmax(Base):
        def forward(self, x):
            return self.out(self.body(x)).softmax(1)

    with pytest.raises(ModelError, match="returns a softmax of the layer 'out'"):
        find_head(Softmax(), X)
