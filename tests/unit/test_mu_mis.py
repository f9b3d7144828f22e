"""MU-Mis: its step, its stop rules, its rollback."""

import copy
import math
import re

import pytest
import torch
from torch import Tensor, nn

import expunge
from expunge.errors import InputError, UnsupportedError
from expunge.methods.base import Before
from expunge.methods.mu_mis import descent
from expunge.methods.mu_mis.method import MuMis
from expunge.methods.mu_mis.sensitivity import Loss, draw_irrelevant, relative_step, scaled_loss
from expunge.methods.mu_mis.stop import End, Observed, published_stop
from expunge.methods.run import Means, Run
from expunge.testing import toys
from expunge.unlearning.door import rehearse

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


def ground_for(model, task, **settings) -> descent.Ground:
    return descent.ground_of(MuMis(**settings), model, task, run_for(model))


def eager(model, x, labels, other):
    """Means of both squared norms in one plain autograd graph: no chunks, no operators of ours."""
    x = x.clone().requires_grad_(True)
    logits = model(x)
    means = []
    for classes in (labels, other):
        picked = logits.gather(1, classes[:, None]).sum()
        (g,) = torch.autograd.grad(picked, x, create_graph=True)
        means.append(g.flatten(1).square().sum(1).mean())
    return means


def by_autograd(model, value: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(model.parameters(), found, strict=True)
    ]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_add_up(digits, chunk):
    model, train, _ = digits
    model = copy.deepcopy(model).double()
    task = double_rows(train)
    rows = task.forget.select(torch.arange(40))
    other = (rows.labels + 1 + torch.arange(40) % 9) % 10
    whole = descent.accumulated(ground_for(model, task, chunk_size=40), rows, other)
    parts = descent.accumulated(ground_for(model, task, chunk_size=chunk), rows, other)
    for name in ("to_target", "to_irrelevant"):
        for one, two in zip(getattr(whole, name), getattr(parts, name), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    assert parts.target == pytest.approx(whole.target, rel=1e-12)
    assert parts.irrelevant == pytest.approx(whole.irrelevant, rel=1e-12)
    assert parts.rows == whole.rows == 40


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("cap", [None, 0.5, 2.0])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_gradient_of_the_descent_is_that_of_its_loss(name, cap, chunk):
    """Chunked sums give what autograd gives of `Loss.value`; `cap` 0.5 is hit, 2.0 is not."""
    toy = toys.toy(name)
    model = toy.trained().double().eval()
    x, y = toy.train.inputs["x"][:23].double(), toy.train.targets[:23]
    other = (y + 1 + torch.arange(23) % 4) % 5
    target, irrelevant = eager(model, x, y, other)
    t, i = float(target.detach()), float(irrelevant.detach())
    loss = scaled_loss(3.0 * t, i, cap=cap)
    value = loss.value(target, irrelevant)
    expected = by_autograd(model, value)

    rows = expunge.forget_classes(None, set(y.tolist()), forget=(x, y)).forget
    ground = ground_for(model, toy.absent(1), chunk_size=chunk)
    sums = descent.accumulated(ground, rows, other)
    assert loss.pays(i) == (cap != 0.5)
    assert loss.of(sums) == pytest.approx(float(value.detach()), rel=1e-10)
    assert loss.left(sums) == pytest.approx(1 / 3, rel=1e-10)
    size = max(float(g.abs().max()) for g in expected)
    for ours, theirs in zip(loss.gradient(sums), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 * size)


def test_plain_step_is_gradient_descent_on_the_scaled_loss(digits):
    """One step with the whole set and no cap equals −step·∇L, written out by autograd."""
    model, train, _ = digits
    model = copy.deepcopy(model).double()
    task = double_rows(train)
    before = copy.deepcopy(model)
    ground = ground_for(model, task, rule="plain", step=0.01, cap=None, batch_size=None, panel=50)
    state = descent.begin(ground)
    clone = torch.Generator().manual_seed(0)
    clone.set_state(ground.run.generator.get_state())
    order = torch.randperm(len(task.forget), generator=clone)
    kept = torch.tensor(ground.run.kept)
    other = draw_irrelevant(task.forget.labels, kept, clone)
    assert descent.step(ground, state).steps == 1
    x, y = task.forget.batch(order)
    target, irrelevant = eager(before, x, y, other)
    loss = (target - irrelevant) / state.looks[0].target
    for p, old, g in zip(
        model.parameters(), before.parameters(), by_autograd(before, loss), strict=True
    ):
        torch.testing.assert_close(p.detach(), old.detach() - 0.01 * g, rtol=1e-9, atol=1e-12)


def test_relative_step_removes_the_asked_share_to_first_order(digits):
    """⟨∇L, Δw⟩ = −step·T, and a tensor moves in proportion to its own squared norm."""
    model, _, _ = digits
    weights = [p.detach().double() for p in model.parameters()]
    generator = torch.Generator().manual_seed(0)
    gradient = [torch.randn(w.shape, dtype=w.dtype, generator=generator) for w in weights]
    moves = relative_step(weights, gradient, share=0.2, left=0.7)
    slope = sum(float((g * m).sum()) for g, m in zip(gradient, moves, strict=True))
    assert slope == pytest.approx(-0.2 * 0.7, rel=1e-12)
    rates = [
        float(-(m / g).mean() / w.square().sum())
        for m, g, w in zip(moves, gradient, weights, strict=True)
    ]
    assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-9)


def test_relative_step_moves_nothing_where_the_gradient_is_zero():
    weights = [torch.ones(3), torch.zeros(2)]
    for gradient in ([torch.zeros(3), torch.zeros(2)], [torch.zeros(3), torch.ones(2)]):
        moves = relative_step(weights, gradient, share=0.2, left=0.7)
        assert not any(bool(m.any()) for m in moves)


def test_a_small_relative_step_lowers_the_target_sensitivity_by_its_share(digits):
    """The law in the net itself: where the irrelevant term is held, T falls by step·T."""
    model, train, _ = digits
    model = copy.deepcopy(model).double()
    ground = ground_for(
        model, double_rows(train), step=1e-6, cap=1e-9, batch_size=None, panel=1000, check_every=1
    )
    before = descent.begin(ground)
    after = descent.look(ground, descent.step(ground, before).steps)
    first = before.looks[0].target
    assert (after.target - first) / first == pytest.approx(-1e-6, rel=1e-2)


def test_a_step_gives_a_new_state_and_leaves_the_old_one(digits):
    model, train, _ = digits
    ground = ground_for(copy.deepcopy(model), expunge.forget_classes(train, {3}), panel=20)
    first = descent.begin(ground)
    kept = [w.clone() for w in first.accepted.weights]
    second = descent.check(ground, descent.step(ground, first))
    assert (first.steps, len(first.looks), len(first.queue)) == (0, 1, 0)
    assert (second.steps, len(second.looks), second.accepted.steps) == (1, 2, 1)
    assert len(second.queue) == len(ground.task.forget) - ground.method.batch_size
    for old, given in zip(kept, first.accepted.weights, strict=True):
        assert torch.equal(old, given)


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
    assert published_stop(trace, 1.1) == fires


def script(monkeypatch, seen):
    """Make `look` return scripted sights (forget %, tune forget %, tune others %, target)."""
    looks = iter(seen)

    def look(ground, steps):
        forget, tune_forget, others, target = next(looks)
        return Observed(
            target=target,
            irrelevant=1.0,
            forget=forget,
            tune_forget=tune_forget,
            tune_others=others,
        )

    monkeypatch.setattr(descent, "look", look)


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


def test_a_sensitivity_that_is_not_finite_is_rolled_back(digits, monkeypatch):
    first = (100.0, None, 99.0, 1.0)
    script(monkeypatch, [first, (60.0, 50.0, 99.0, 0.5), (0.0, 0.0, 99.0, math.inf)])
    assert unlearned(digits).record.notes[-1] == (
        "stopped by a sensitivity that is not finite after 2 steps; rolled back 1 to the last "
        "accepted state"
    )


def test_nothing_accepted_is_a_no_op(digits, monkeypatch):
    bad = (0.0, 0.0, 50.0, 0.1)
    script(monkeypatch, [(100.0, None, 99.0, 1.0), bad, bad, bad])
    assert unlearned(digits).outcome.outcome is expunge.Outcome.NO_OP


def test_a_gradient_that_is_not_finite_is_rolled_back(digits, monkeypatch):
    real = descent.accumulated
    calls = []

    def poisoned(*args):
        calls.append(1)
        sums = real(*args)
        if len(calls) == 3:
            sums.to_target[0][:] = math.nan
        return sums

    monkeypatch.setattr(descent, "accumulated", poisoned)
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
    figures = result.outcome.figures
    assert figures["forget_after"] <= 2.0
    assert figures["judge_class_after"] <= 5.0
    assert figures["others_change"] >= -2.0
    # of some 30 judge rows of a class a single one that is recognised leaves it open
    settled = figures["class_bound"] <= result.record.limits.class_bound
    wanted = expunge.Outcome.DONE if settled else expunge.Outcome.UNDETERMINED
    assert result.outcome.outcome is wanted, result.outcome.reason


def test_the_train_mode_variant_fails(monkeypatch):
    """With batch norm in train mode the same steps write buffers: the door must refuse it."""
    toy = toys.toy("cnn")
    real = descent.accumulated

    def in_train_mode(ground, *args):
        ground.model.train()
        try:
            return real(ground, *args)
        finally:
            ground.model.eval()

    monkeypatch.setattr(descent, "accumulated", in_train_mode)
    with pytest.raises(expunge.ExpungeError, match="to leave buffers alone"):
        expunge.unlearn(toy.trained(), MuMis(most_steps=2), toy.absent(1), seed=0)


def test_never_pulls_towards_a_class_forgotten_earlier(digits, monkeypatch):
    model, train, holdout = digits
    drawn = []
    real = descent.draw_irrelevant

    def spy(labels, kept, generator):
        out = real(labels, kept, generator)
        drawn.append(out)
        return out

    first = expunge.unlearn(
        model, expunge.MaskClass(), expunge.forget_classes(train, {5}, holdout=holdout), seed=0
    )
    monkeypatch.setattr(descent, "draw_irrelevant", spy)
    expunge.unlearn(
        first, MuMis(most_steps=5), expunge.forget_classes(train, {3}, holdout=holdout), seed=0
    )
    seen = set(torch.cat(drawn).tolist())
    assert not seen & {3, 5}
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "adam"}, 'Expected `rule` to be "relative" or "plain", got \'adam\''),
        ({"stop": "never"}, 'Expected `stop` to be "validated" or "published", got \'never\''),
        ({"step": 0.0}, "Expected `step` to be a number above 0, got 0.0"),
        ({"step": -1}, "Expected `step` to be a number above 0, got -1"),
        ({"cap": -1.0}, "Expected `cap` to be a number from 0 or None, got -1.0"),
        ({"batch_size": 0}, "Expected `batch_size` to be an integer from 1 or None, got 0"),
        ({"panel": 0.5}, "Expected `panel` to be an integer from 1, got 0.5"),
        ({"forget_accuracy": 101.0}, "`forget_accuracy` to be a number from 0 and at most 100"),
        ({"tolerance": -0.1}, "Expected `tolerance` to be a number from 0, got -0.1"),
    ],
)
def test_wrong_settings_are_refused_by_name_before_any_copy(settings, message, monkeypatch):
    def no_copy(_):
        raise AssertionError("the model was copied")

    toy = toys.toy("mlp")
    model, task = toy.trained(), toy.absent(1)
    monkeypatch.setattr(copy, "deepcopy", no_copy)
    with pytest.raises(InputError, match=re.escape(message)):
        expunge.unlearn(model, MuMis(**settings), task, seed=0)


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
    message = "Expected inputs in one floating tensor for mu-mis, got torch.int64"
    for door in (expunge.unlearn, rehearse):
        with pytest.raises(UnsupportedError, match=message):
            door(Tokens(), MuMis(), task, seed=0)


def test_named_inputs_are_refused_by_a_dry_run_too():
    toy = toys.toy("mapping")
    with pytest.raises(UnsupportedError, match="for mu-mis, got named tensors"):
        rehearse(toy.trained(), MuMis(), toy.absent(1), seed=0)


def test_every_end_is_said_in_words():
    words = [end.value.format(most_steps=7) for end in End]
    assert len(set(words)) == len(words)
    assert End.MOST_STEPS.value.format(most_steps=7) == "the cap of 7 steps"
    toy = toys.toy("mlp")
    result = expunge.unlearn(toy.trained(), MuMis(most_steps=1), toy.absent(1), seed=0)
    assert result.record.notes[-1].startswith("stopped by the cap of 1 steps after 1 steps")


def test_the_published_form_is_plain_uncapped_descent_on_the_whole_set(digits):
    method = MuMis.as_published()
    assert (method.rule, method.cap, method.stop) == ("plain", None, "published")
    assert (method.batch_size, method.check_every) == (None, 1)
    assert Loss(scale=1.0, cap=math.inf) == scaled_loss(1.0, 7.0, cap=method.cap)
    model, train, holdout = digits
    task = expunge.forget_classes(train, {3}, holdout=holdout)
    record = expunge.unlearn(model, method, task, seed=0).record
    assert "stopped by the published rule" in record.notes[-1]
    assert "tune_others_accuracy" not in record.log


@pytest.mark.parametrize(
    "method",
    [
        MuMis(most_steps=7, forget_accuracy=0.0, batch_size=10, panel=9),
        MuMis(most_steps=10, forget_accuracy=0.0, batch_size=None),
        MuMis(most_steps=3, stop="published", rule="plain", step=1e-6),
    ],
    ids=repr,
)
def test_it_reads_the_rows_it_says(method):
    toy = toys.toy("mlp")
    task = toy.absent(1)
    record = expunge.unlearn(toy.trained(), method, task, seed=0).record
    steps = record.cost.gradient_steps
    assert steps == method.most_steps
    forget = len(task.forget)
    tune = record.tune_count if method.stop == "validated" else 0
    looks = 1 + math.ceil(steps / method.check_every)
    assert record.cost.samples_touched == (
        steps * min(method.batch_size or forget, forget)
        + looks * (min(method.panel, forget) + tune)
    )
