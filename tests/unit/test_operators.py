"""MU-Mis on operators without a double backward, on models that write on their input."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

import expunge
from expunge.errors import UnsupportedError
from expunge.methods.mu_mis.twice import differentiable_twice
from expunge.network.state import digest_of, state_of
from expunge.unlearning.door import rehearse


class Gate(nn.Module):
    """The gate of squeeze and excitation, as in MobileNetV3 and GhostNet."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.s, self.h = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        f = F.relu(self.a(x))
        return self.h(f * F.hardsigmoid(self.s(f)))


class Swish(Gate):
    def forward(self, x):
        f = F.hardswish(self.a(x), inplace=True)
        return self.h(f * nn.Hardsigmoid(inplace=True)(self.s(f)))


class Checkpoint(Gate):
    def forward(self, x):
        f = F.relu(self.a(x))
        return self.h(checkpoint(lambda t: F.relu(self.s(t)), f, use_reentrant=True))


class WritesOnInput(Gate):
    def forward(self, x):
        x -= 0.1
        x /= 1.3
        return self.h(F.relu(self.a(x)))


class ReluFirst(Gate):
    def forward(self, x):
        return self.h(F.relu(self.a(F.relu(x, inplace=True))))


def _task():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    return expunge.forget_classes((x, torch.arange(40) % 4), {1}, ids=range(40))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("make", [Gate, Swish, Checkpoint, WritesOnInput, ReluFirst])
def test_mu_mis_works(make):
    task, model = _task(), make()
    x, before = task.forget.batch(torch.arange(10))[0], digest_of(state_of(model))
    rehearse(model, expunge.MuMis(), task, seed=0)
    result = expunge.unlearn(model, expunge.MuMis(most_steps=10), task, seed=0)
    assert result.record.cost.gradient_steps >= 5
    seen = result.record.log["target_sensitivity"]
    assert seen[-1] < 0.9 * seen[0]
    assert torch.equal(x, task.forget.batch(torch.arange(10))[0])
    assert digest_of(state_of(model)) == before
    assert "apply" not in vars(CheckpointFunction)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("function", [F.hardsigmoid, F.hardswish])
def test_the_pieces_have_the_values_and_slopes_of_the_original(function, inplace):
    x = torch.cat([torch.linspace(-4, 4, 33), torch.tensor([-3.0, 3.0, 0.0])]).double()
    x.requires_grad_(True)
    expected = function(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    with differentiable_twice():
        y = x * 1
        found = function(y, inplace=inplace)
        assert (found is y) == inplace
        (own,) = torch.autograd.grad(found.sum(), x, create_graph=True)
        if function is F.hardswish:
            (second,) = torch.autograd.grad(own.square().sum(), x)
    torch.testing.assert_close(found, expected)
    inner = x.detach().abs() != 3
    torch.testing.assert_close(own[inner], slope[inner])
    if function is F.hardswish:  # twice the slope x/3 + 1/2, times the second derivative 1/3
        between = (x.detach().abs() < 3).double()
        torch.testing.assert_close(second, 2 * own.detach() * between / 3)


class Distances(Gate):
    def forward(self, x):
        return -torch.cdist(F.relu(self.a(x)), self.h.weight)


class Cut(Gate):
    def forward(self, x):
        return self.h(F.relu(self.a(x.detach())))


@pytest.mark.parametrize(
    ("make", "words"),
    [(Distances, "the operator 'cdist', whose second derivative"), (Cut, "differentiated twice")],
)
@pytest.mark.parametrize("act", [rehearse, expunge.unlearn])
def test_any_other_operator_without_one_is_named_before_work(act, make, words):
    model = make()
    with pytest.raises(UnsupportedError, match=words):
        act(model, expunge.MuMis(), _task(), seed=0)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
