"""What is judged is what is stored, and what moves no answer is a no-op."""

import copy
import types
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scripted import info as info_of
from torch import nn

import expunge
from expunge import FineTune, MaskClass, Prune, Retrain, Training, load_run, save_run, unlearn
from expunge.data.views import as_rows
from expunge.errors import ModelError
from expunge.methods import Method
from expunge.network.passes import logits_of
from expunge.network.rebuilding import bare
from expunge.network.state import digest_of, state_of
from expunge.network.weights import from_bytes, save_weights, to_bytes
from expunge.records import MethodInfo, Outcome
from expunge.testing import toy
from expunge.unlearning.stored import greatest, moved

MADE = toy("mlp")
CPU = torch.device("cpu")
OTHERWISE = "the model in memory answers otherwise than the stored weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(Method):
    act: object
    info: ClassVar[MethodInfo] = info_of()

    def apply(self, model, task, run):
        return self.act(model, task, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping(Scripted):
    info: ClassVar[MethodInfo] = info_of(structure="wraps")


class Wrapper(nn.Module):
    """Names everything anew; `hidden` is in no state dict."""

    def __init__(self, model, hidden=None):
        super().__init__()
        self.model = model
        self.hidden = hidden

    def forward(self, x):
        z = self.model(x)
        return z if self.hidden is None else z.index_fill(1, torch.tensor([self.hidden]), -100.0)


def _answers(model):
    return logits_of(model, as_rows(MADE.train), batch_size=64, device=CPU)


def _masked(model, label):
    """Answers that never give the class, by a `forward` on the instance alone."""
    plain = type(model).forward

    def forward(self, x):
        return plain(self, x).index_fill(1, torch.tensor([label]), -100.0)

    model.forward = types.MethodType(forward, model)
    return model


def _notes(result):
    return [note for note in result.record.notes if note.startswith(OTHERWISE)]


# --- a module that answers otherwise than its weights ---------------------------------------------


def test_a_forward_on_the_instance_is_a_no_op_where_the_weights_stay():
    result = unlearn(
        MADE.trained(), Scripted(act=lambda m, *_: _masked(m, 3)), MADE.absent(3), seed=0
    )
    assert result.outcome.outcome is Outcome.NO_OP
    assert len(_notes(result)) == 1
    assert torch.equal(_answers(result.model), _answers(MADE.trained()))


@pytest.mark.parametrize("given", [{}, {"factory": MADE.factory}], ids=["copy", "factory"])
def test_a_forward_on_the_instance_is_not_judged(given, tmp_path):
    def act(model, *_):
        with torch.no_grad():
            model.head.bias.add_(0.01 * torch.arange(5))
        return _masked(model, 3)

    model = MADE.trained()
    result = unlearn(model, Scripted(act=act), MADE.absent(3), seed=0, **given)
    assert result.outcome.outcome is Outcome.INEFFECTIVE
    assert len(_notes(result)) == 1
    assert "forward" not in vars(result.model)
    assert result.record.cost.parameters_changed == 4, "what is stored is counted"
    assert digest_of(state_of(model)) == result.record.digest_before
    run = save_run(result, tmp_path / "run")
    loaded = load_run(run, factory=MADE.factory).model
    assert torch.equal(_answers(loaded), _answers(result.model))


def test_a_forward_put_there_by_a_fit_is_not_judged():
    def fit(model, dataset, *, generator, device):
        every = MADE.recipe(model, MADE.train, generator=generator, device=device)
        return _masked(every, 3)

    task = MADE.absent(3, training=Training(MADE.factory, fit))
    result = unlearn(MADE.trained(), Retrain(), task, seed=1)
    assert result.outcome.figures["forget_after"] > 90
    assert len(_notes(result)) == 1


def test_a_forward_of_the_users_own_stays():
    def act(model, *_):
        with torch.no_grad():
            model.head.bias[3] -= 100.0
        return model

    given = _masked(MADE.trained(), 4)
    result = unlearn(given, Scripted(act=act), MADE.absent(3), seed=0)
    assert result.outcome.outcome is not Outcome.NO_OP
    assert not _notes(result)
    assert float(_answers(result.model)[:, 4].max()) == -100.0


def test_a_module_in_memory_that_raises_is_told():
    def act(model, *_):
        with torch.no_grad():
            model.head.bias[3] -= 100.0
        model.forward = lambda _x: (_ for _ in ()).throw(RuntimeError("nothing here"))
        return model

    result = unlearn(MADE.trained(), Scripted(act=act), MADE.absent(3), seed=0)
    assert result.outcome.outcome is Outcome.DONE
    assert "nothing here" in _notes(result)[0]


class Offset(nn.Module):
    """A buffer that is in no file."""

    def __init__(self):
        super().__init__()
        self.inner = MADE.trained()
        self.register_buffer("offset", torch.zeros(5), persistent=False)

    def forward(self, x):
        return self.inner(x) + self.offset


def test_a_buffer_that_is_not_stored_counts_for_nothing():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Moving(Scripted):
        info: ClassVar[MethodInfo] = info_of(changes_buffers=True)

    def act(model, *_):
        model.offset[3] = -100.0
        return model

    result = unlearn(Offset(), Moving(act=act), MADE.absent(3), seed=0)
    assert result.outcome.outcome is Outcome.NO_OP
    assert len(_notes(result)) == 1
    assert result.record.cost.buffers_changed == 0


def test_the_given_patches_are_taken_off_before_the_bytes_are_read_back():
    first = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0, 1), seed=0)
    second = unlearn(first, Prune(form="gated"), MADE.unseen(2), seed=0)
    third = unlearn(second, Retrain(), MADE.unseen(3), seed=0)
    for result in (first, second, third):
        assert not any("stored weights" in note for note in result.record.notes)
    assert type(third.model.head) is nn.Linear


def test_narrow_heads_and_patches_on_regions_come_back():
    narrow = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    again = unlearn(narrow, Prune(), MADE.absent(1), seed=0)
    assert bool((_answers(again.model)[:, [1, 3]] == -torch.inf).all())
    published = unlearn(MADE.trained(), Prune.as_published(), MADE.unseen(0, 1), seed=0)
    more = unlearn(published, Prune.as_published(), MADE.unseen(2), seed=0)
    tuned = unlearn(more, FineTune(epochs=1), MADE.unseen(3), seed=0)
    for result in (narrow, again, published, more, tuned):
        assert not any("stored weights" in note for note in result.record.notes)


def test_bare_takes_off_every_patch():
    plain = set(MADE.trained().state_dict())
    gated = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0).model
    narrow = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0).model
    regions = unlearn(MADE.trained(), Prune.as_published(), MADE.unseen(0), seed=0).model
    for model in (gated, narrow, regions):
        assert set(model.state_dict()) != plain
        stripped = bare(copy.deepcopy(model))
        assert {n: t.shape for n, t in stripped.state_dict().items()} == {
            n: t.shape for n, t in MADE.trained().state_dict().items()
        }


def test_the_bytes_are_those_of_the_file(tmp_path):
    model = toy("cnn").trained()
    save_weights(model, tmp_path / "w.safetensors")
    data = to_bytes(model)
    assert (tmp_path / "w.safetensors").read_bytes() == data
    assert digest_of(from_bytes(data)) == digest_of(model.state_dict())


def test_weights_that_no_file_holds_are_refused_by_name():
    model = nn.Linear(2, 2)
    model.register_buffer("phases", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(ModelError, match="that safetensors can hold"):
        to_bytes(model)


def test_a_factory_of_another_architecture_is_refused_before_the_edit():
    method = Scripted(act=lambda *_: pytest.fail("the edit was begun"))
    for factory, words in (
        (lambda: nn.Linear(12, 5), "the given model to fit the model that `factory` builds"),
        (lambda: 1 / 0, "`factory` to return an nn.Module, but it raised ZeroDivisionError"),
    ):
        with pytest.raises(ModelError, match=words):
            unlearn(MADE.trained(), method, MADE.absent(3), seed=0, factory=factory)


def test_a_factory_leaves_modes_flags_and_random_state_alone():
    given = MADE.untidy()
    before = torch.get_rng_state()
    result = unlearn(given, MaskClass(), MADE.absent(3), seed=0, factory=MADE.factory)
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in result.model.modules()] == [m.training for m in given.modules()]
    flags = [p.requires_grad for p in result.model.parameters()]
    assert flags == [p.requires_grad for p in given.parameters()]


# --- modules that no copy of the given model can hold ---------------------------------------------


def test_a_wrapper_is_accepted_only_where_it_can_be_rebuilt():
    method = Wrapping(act=lambda model, *_: Wrapper(model, hidden=3))
    blind = unlearn(MADE.trained(), method, MADE.absent(3), seed=0)
    assert blind.outcome.outcome is Outcome.UNDETERMINED
    assert "a module of its own, pass a `factory` that builds it" in blind.outcome.reason
    assert any(n.startswith("the stored weights were not judged") for n in blind.record.notes)

    def factory():
        return Wrapper(MADE.factory(), hidden=3)

    known = unlearn(MADE.trained(), method, MADE.absent(3), seed=0, factory=factory)
    assert known.outcome.outcome is Outcome.DONE
    assert not any("stored weights" in note for note in known.record.notes)


@pytest.mark.parametrize("given", [{}, {"factory": MADE.factory}], ids=["copy", "factory"])
def test_a_bare_wrapper_is_a_no_op_and_changes_nothing(given):
    method = Wrapping(act=lambda model, *_: Wrapper(model))
    result = unlearn(MADE.trained(), method, MADE.absent(3), seed=0, **given)
    assert result.outcome.outcome is Outcome.NO_OP
    assert result.record.cost.parameters_changed == 0
    assert result.record.cost.parameters == sum(p.numel() for p in MADE.trained().parameters())


# --- edits that move no answer --------------------------------------------------------------------


def _by(amount):
    def act(model, *_):
        with torch.no_grad():
            model.head.weight[0, 0] += amount
        return model

    return Scripted(act=act)


@pytest.mark.parametrize("task", [MADE.absent(3), MADE.unseen(0, 1, 2)], ids=["class", "records"])
def test_one_weight_and_a_hair_is_a_no_op(task):
    result = unlearn(MADE.trained(), _by(1e-7), task, seed=0)
    assert result.record.cost.parameters_changed == 1
    assert result.outcome.outcome is Outcome.NO_OP
    assert result.outcome.reason == (
        "no answer on the forget rows moved by more than 1e-5 of the largest logit"
    )
    assert not result.outcome.outcome.accepted
    more = unlearn(MADE.trained(), _by(1e-1), task, seed=0)
    assert more.outcome.outcome is not Outcome.NO_OP


def test_a_class_that_was_never_recognised_is_not_done_by_a_hair():
    """On rows that the model gets wrong an edit of nothing looks like success."""
    wrong = (MADE.train.inputs["x"], (MADE.train.targets + 1) % 5)
    holdout = (MADE.holdout.inputs["x"], (MADE.holdout.targets + 1) % 5)
    task = expunge.forget_classes(wrong, {3}, holdout=holdout)
    assert unlearn(MADE.trained(), _by(1e-7), task, seed=0).outcome.outcome is Outcome.NO_OP


def test_what_counts_as_moved():
    z = torch.tensor([[100.0, 1.0, -torch.inf]])
    assert greatest(z) == 100.0
    assert not moved(z, z.clone(), 100.0)
    assert not moved(z, z + torch.tensor([[0.0, 9e-4, 0.0]]), 100.0)
    assert moved(z, z + torch.tensor([[0.0, 2e-3, 0.0]]), 100.0)
    assert moved(z, torch.tensor([[100.0, -torch.inf, -torch.inf]]), 100.0), "a class was removed"
    assert moved(z, torch.tensor([[100.0, 1.0, 0.0]]), 100.0), "a class came back"
    assert moved(z, torch.tensor([[100.0, torch.nan, -torch.inf]]), 100.0)
    assert moved(z, z[:, :2], 100.0)
    assert greatest(torch.full((1, 2), -torch.inf)) == 0.0


def test_an_output_masked_by_a_number_is_no_scale():
    logits = torch.tensor([[3.0, -2.0, -1e9], [1.0, 4.0, -1e9]])
    assert greatest(logits) == 4.0
    assert greatest(torch.tensor([[2.0, 1.0, -65504.0]])) == 2.0
    assert greatest(torch.tensor([[200.0, 1.0, -torch.inf]])) == 200.0
    assert greatest(torch.full((2, 2), -torch.inf)) == 0.0
    assert moved(logits, logits + torch.tensor([1e-3, 0.0, 0.0]), greatest(logits))
