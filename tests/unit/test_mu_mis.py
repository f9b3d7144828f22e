"""MU-Mis: its step, its stop rules, its rollback."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import expunge
from expunge.errors import InputError, UnsupportedError
from expunge.methods.base import Before
from expunge.methods.mu_mis import method as mu_mis
from expunge.methods.mu_mis.method import MuMis, accumulated, published_stop
from expunge.methods.run import Means, Run
from expunge.testing import toys

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    """The demo's net and data; the class-3 request."""
    from expunge.data.demo import digits
    from expunge.models import DigitsNet

    train, holdout = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recipe = expunge.Recipe(epochs=15, batch_size=64, lr=0.1)
        model = recipe(DigitsNet(), train, generator=torch.Generator().manual_seed(0), device=CPU)
    return model, train, holdout


def run_for(model: nn.Module) -> Run:
    return Run(
        means=Means(seed=0, device=CPU, batch_size=64),
        generator=torch.Generator().manual_seed(0),
        classes=10,
        kept=tuple(c for c in range(10) if c != 3),
        before=Before(head=None, evidence=None, predecessor=None),
    )


def double_rows(train) -> expunge.ForgetTask:
    images, labels = train.tensors
    return expunge.forget_classes((images.double(), labels), {3})


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_add_up(digits, chunk):
    model, train, _ = digits
    model = copy.deepcopy(model).double()
    rows = double_rows(train).forget.select(torch.arange(40))
    other = (rows.labels + 1 + torch.arange(40) % 9) % 10
    parameters = list(model.parameters())
    whole = accumulated(model, rows, other, parameters, 40, run_for(model))
    parts = accumulated(model, rows, other, parameters, chunk, run_for(model))
    for one, two in zip((*whole[0], *whole[1]), (*parts[0], *parts[1]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    assert parts[2] == pytest.approx(whole[2], rel=1e-12)
    assert parts[3] == pytest.approx(whole[3], rel=1e-12)


def descent(model, task, **settings):
    method = MuMis(**settings)
    run = run_for(model)
    return mu_mis._Descent(method, model, task, run)


def test_plain_step_is_gradient_descent_on_the_scaled_loss(digits):
    """One step with the whole set and no cap equals −step·∇L, written out by autograd."""
    model, train, _ = digits
    model = copy.deepcopy(model).double()
    task = double_rows(train)
    before = copy.deepcopy(model)
    state = descent(model, task, rule="plain", step=0.01, cap=None, batch_size=None, panel=50)
    clone = torch.Generator().manual_seed(0)
    clone.set_state(state.run.generator.get_state())
    order = torch.randperm(len(task.forget), generator=clone)
    other = mu_mis.draw_irrelevant(task.forget.labels, state.kept, clone)
    state.step()
    x, y = task.forget.batch(order)
    x = x.requires_grad_(True)
    logits = before(x)
    terms = []
    for classes in (y, other):
        picked = logits.gather(1, classes[:, None]).sum()
        (g,) = torch.autograd.grad(picked, x, create_graph=True)
        terms.append(g.flatten(1).square().sum(1).mean())
    loss = (terms[0] - terms[1]) / state.scale
    gradients = torch.autograd.grad(loss, list(before.parameters()), allow_unused=True)
    for p, old, g in zip(model.parameters(), before.parameters(), gradients, strict=True):
        expected = old.detach() if g is None else old.detach() - 0.01 * g
        torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-12)


def test_relative_step_removes_the_asked_share_to_first_order(digits):
    """⟨∇L, Δw⟩ = −step·T, and a tensor moves in proportion to its own squared norm."""
    model, train, _ = digits
    model = copy.deepcopy(model).double()
    state = descent(model, double_rows(train), step=0.2, batch_size=None)
    gradient = [torch.randn_like(p) for p in state.parameters]
    before = [p.detach().clone() for p in state.parameters]
    with torch.no_grad():
        state._move(gradient, 0.7)
    moved = [p.detach() - b for p, b in zip(state.parameters, before, strict=True)]
    slope = sum(float((g * m).sum()) for g, m in zip(gradient, moved, strict=True))
    assert slope == pytest.approx(-0.2 * 0.7, rel=1e-9)
    rates = [
        float(-(m / g).mean() / b.square().sum())
        for m, g, b in zip(moved, gradient, before, strict=True)
    ]
    assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-6)


@pytest.mark.parametrize(
    ("trace", "fires"),
    [
        ([1.0, 0.9, 0.8, 0.7], False),  # falls only
        ([1.0, 1.0, 1.0], False),  # never above its minimum
        ([1.0, 0.5, 0.9, 1.1], False),  # has recovered, not yet over δ²
        ([1.0, 0.5, 0.9, 1.3], True),  # dips, then recovers over δ²
        ([1.0, 1.3], True),  # at once
        ([0.0, 0.0], False),  # no sensitivity at all
    ],
)
def test_published_rule_on_scripted_traces(trace, fires):
    assert (published_stop(trace, 1.1) is not None) == fires


def script(monkeypatch, seen):
    """Make `_look` return scripted sights (forget %, tune forget %, tune others %)."""
    steps = iter(seen)

    def look(self):
        forget, tune_forget, others, target = next(steps)
        return mu_mis._Seen(self.number, target, 1.0, forget, tune_forget, others)

    monkeypatch.setattr(mu_mis._Descent, "_look", look)


def unlearned(digits, **settings):
    model, train, holdout = digits
    task = expunge.forget_classes(train, {3}, holdout=holdout)
    return expunge.unlearn(model, MuMis(check_every=1, **settings), task, seed=0)


def test_validated_stop_fires_when_forgotten_on_forget_and_tune(digits, monkeypatch):
    first = (100.0, None, 99.0, 1.0)
    script(
        monkeypatch, [first, (50.0, 0.0, 99.0, 0.5), (0.0, 9.0, 99.0, 0.1), (0.0, 0.0, 99.0, 0.1)]
    )
    note = unlearned(digits).record.notes[-1]
    assert note == "stopped by the validated rule after 3 steps"


def test_refused_states_are_rolled_back_to_the_last_accepted_one(digits, monkeypatch):
    first = (100.0, None, 99.0, 1.0)
    bad = (0.0, 0.0, 50.0, 0.1)
    script(monkeypatch, [first, (60.0, 50.0, 99.0, 0.5), bad, bad, bad])
    result = unlearned(digits)
    assert result.record.notes[-1] == (
        "stopped by three refused states in a row after 4 steps; rolled back 3 to the last "
        "accepted state"
    )
    script(monkeypatch, [first, (60.0, 50.0, 99.0, 0.5)])
    one = unlearned(digits, most_steps=1)
    for a, b in zip(result.model.parameters(), one.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nothing_accepted_is_a_no_op(digits, monkeypatch):
    bad = (0.0, 0.0, 50.0, 0.1)
    script(monkeypatch, [(100.0, None, 99.0, 1.0), bad, bad, bad])
    assert unlearned(digits).outcome.outcome is expunge.Outcome.NO_OP


def test_a_gradient_that_is_not_finite_is_rolled_back(digits, monkeypatch):
    real = mu_mis.accumulated
    calls = []

    def poisoned(*args) -> tuple[list[Tensor], list[Tensor], float, float]:
        calls.append(1)
        to_target, to_other, target, irrelevant = real(*args)
        if len(calls) == 3:
            to_target[0][:] = math.nan
        return to_target, to_other, target, irrelevant

    monkeypatch.setattr(mu_mis, "accumulated", poisoned)
    result = unlearned(digits, forget_accuracy=0.0)
    assert "a gradient that is not finite after 2 steps" in result.record.notes[-1]


def test_works_without_any_holdout_and_says_which_rule(digits):
    model, train, _ = digits
    images, labels = train.tensors
    rows = (images[labels == 3], labels[labels == 3])
    task = expunge.forget_classes(None, {3}, forget=rows)
    result = expunge.unlearn(model, MuMis(), task, seed=0)
    assert result.outcome.figures["forget_after"] <= 5.0
    assert result.outcome.outcome is expunge.Outcome.UNDETERMINED
    assert "stopped by the forget-only rule" in result.record.notes[-1]


@pytest.mark.parametrize("label", [1, 3, 8])
def test_effect_on_digits(digits, label):
    model, train, holdout = digits
    task = expunge.forget_classes(train, {label}, holdout=holdout)
    result = expunge.unlearn(model, MuMis(), task, seed=0)
    assert result.outcome.outcome is expunge.Outcome.DONE, result.outcome.reason
    assert result.outcome.figures["forget_after"] <= 2.0
    assert result.outcome.figures["others_change"] >= -2.0


def test_the_train_mode_variant_fails(monkeypatch):
    """With batch norm in train mode the same steps write buffers: the door must refuse it."""
    toy = toys.toy("cnn")
    real = mu_mis.accumulated

    def in_train_mode(model, *args):
        model.train()
        try:
            return real(model, *args)
        finally:
            model.eval()

    monkeypatch.setattr(mu_mis, "accumulated", in_train_mode)
    with pytest.raises(expunge.ExpungeError, match="to leave buffers alone"):
        expunge.unlearn(toy.trained(), MuMis(most_steps=2), toy.absent(1), seed=0)


def test_never_pulls_towards_a_class_forgotten_earlier(digits, monkeypatch):
    model, train, holdout = digits
    drawn = []
    real = mu_mis.draw_irrelevant

    def spy(labels, kept, generator):
        out = real(labels, kept, generator)
        drawn.append(out)
        return out

    first = expunge.unlearn(
        model, expunge.MaskClass(), expunge.forget_classes(train, {5}, holdout=holdout), seed=0
    )
    monkeypatch.setattr(mu_mis, "draw_irrelevant", spy)
    expunge.unlearn(
        first, MuMis(most_steps=5), expunge.forget_classes(train, {3}, holdout=holdout), seed=0
    )
    seen = set(torch.cat(drawn).tolist())
    assert not seen & {3, 5}
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "adam"}, 'Expected `rule` to be "relative" or "plain", got .adam'),
        ({"stop": "never"}, 'Expected `stop` to be "validated" or "published", got .never'),
        ({"step": 0.0}, "Expected `step` above 0, got 0.0"),
    ],
)
def test_wrong_settings_are_refused_by_name(digits, settings, message):
    with pytest.raises(InputError, match=message):
        unlearned(digits, **settings)


def test_inputs_without_a_gradient_are_refused():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.table(x).mean(1))

    x, y = torch.zeros(30, 2, dtype=torch.long), torch.arange(30) % 3
    task = expunge.forget_classes((x, y), {1})
    with pytest.raises(UnsupportedError, match="Expected inputs in one floating tensor for mu-mis"):
        expunge.unlearn(Tokens(), MuMis(), task, seed=0)
