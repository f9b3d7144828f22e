"""The door: what it refuses, what it hands to a method, what it makes of a broken method."""

import dataclasses
import json
import math
import re
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import pytest
import torch
from learnt_by_heart import LOOSE, unseen
from scripted import info as info_of
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset

import expunge
from expunge import (
    FineTune,
    LeastSquaresRemoval,
    Limits,
    MaskClass,
    NaivePrototypeSurgery,
    PrototypeSurgery,
    Prune,
    Recipe,
    Retrain,
    Training,
    forget_classes,
    forget_indices,
    unlearn,
)
from expunge.data.views import as_rows
from expunge.errors import (
    ContractError,
    DataError,
    ExpungeError,
    InputError,
    ModelError,
    StatisticsError,
    TaskError,
    UnsupportedError,
)
from expunge.methods import Method
from expunge.network.heads import find_head
from expunge.network.state import digest_of, state_of
from expunge.reasons import Reason
from expunge.records import MethodInfo, Outcome, to_json
from expunge.results.forgotten import found_again
from expunge.statistics.collect import collect_statistics
from expunge.testing import ToyData, toy
from expunge.unlearning.door import rehearse

MADE = toy("mlp")


def _nothing(model, _task, _run):
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(Method):
    """Does what the test says, and keeps what it was handed."""

    act: object = _nothing
    seen: list = field(default_factory=list)

    info: ClassVar[MethodInfo] = info_of()

    def apply(self, model, task, run):
        self.seen.append((task, run))
        return self.act(model, task, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy(Scripted):
    info: ClassVar[MethodInfo] = info_of(
        needs=frozenset({"forget", "retain", "statistics", "holdout", "training", "head"})
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keen(Scripted):
    """Retain rows and nothing else."""

    info: ClassVar[MethodInfo] = info_of(needs=frozenset({"forget", "retain"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer(Scripted):
    """Declares that it trains anew."""

    info: ClassVar[MethodInfo] = info_of(needs=frozenset({"retain", "training"}))


def _nudge(model, _task, _run):
    with torch.no_grad():
        model.head.bias.add_(1.0)
    return model


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


# --- refusals ------------------------------------------------------------------------------------


def _bad_models():
    broken = MADE.trained()
    with torch.no_grad():
        broken.body[0].weight[0, 0] = math.nan
    one = nn.Linear(12, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantisation is deprecated, models are still around
        quantised = torch.ao.quantization.quantize_dynamic(MADE.trained(), {nn.Linear})
        scripted = torch.jit.trace(MADE.trained(), MADE.train.inputs["x"][:2])
    return {
        "not a module": ({}, "an nn.Module, got dict"),
        "data parallel": (nn.DataParallel(MADE.trained()), "Pass its `.module`"),
        "compiled": (torch.compile(MADE.trained(), backend="eager"), "Pass its `._orig_mod`"),
        "TorchScript": (scripted, "got TorchScript"),
        "quantised": (quantised, "quantised layer"),
        "NaN": (broken, r"finite weights, got NaN or infinity in 'body.0.weight' \(1 tensors\)"),
        "one logit": (one, "at least two logits a row, got one"),
        "no weights": (nn.Flatten(), "got one without any"),
        "softmax at the end": (nn.Sequential(MADE.trained(), nn.Softmax(1)), "not a softmax of it"),
    }


@pytest.mark.parametrize("case", _bad_models())
def test_models_are_refused(case):
    model, words = _bad_models()[case]
    with pytest.raises(ModelError, match=words):
        unlearn(model, MaskClass(), MADE.absent(3), seed=0)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: MADE.absent(3, train=DataLoader(MADE.train)), DataError, "got a DataLoader"),
        (lambda: MADE.absent(3, train=Stream()), DataError, "got an IterableDataset"),
        (lambda: MADE.absent(3, holdout=DataLoader(MADE.holdout)), DataError, "`holdout`"),
    ],
)
def test_data_are_refused(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def _with_labels(labels):
    return ToyData(MADE.train.inputs, labels)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": None}, "an nn.Module, got NoneType"),
        ({"method": MaskClass}, r"got <class .*MaskClass.*Call it: pass `Method\(\)`"),
        ({"method": "mask-class"}, "`method` to be a Method, got 'mask-class'"),
        ({"task": {3}}, "`task` to be a ForgetTask, got set"),
        ({"seed": 1.5}, "`seed` to be an integer from 0, got 1.5"),
        ({"seed": -1}, "got -1"),
        ({"seed": True}, "got True"),
        ({"head": "fc"}, "`head` to name an nn.Linear of the model, got 'fc'"),
        (
            {"task": MADE.absent(5, train=_with_labels(MADE.train.targets + 1), holdout=None)},
            "labels of `forget` below the model's 5 classes, got 5",
        ),
        (
            {
                "task": MADE.absent(
                    3, holdout=ToyData(MADE.holdout.inputs, MADE.holdout.targets + 1)
                )
            },
            "labels of `holdout` below the model's 5 classes, got 5",
        ),
        ({"task": MADE.absent(0, 1, 2, 3)}, "at least two of the model's 5 classes to stay"),
    ],
)
def test_arguments_are_refused(given, words):
    model = given.pop("model", MADE.trained())
    call = {"seed": 0} | given
    method, task = call.pop("method", MaskClass()), call.pop("task", MADE.absent(3))
    with pytest.raises(InputError, match=words):
        unlearn(model, method, task, **call)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_refused():
    with pytest.raises(InputError, match="`device` 'cuda' to be there"):
        unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0, device="cuda")


def test_random_augmentation_is_refused():
    noise = torch.Generator().manual_seed(0)

    class Noisy(torch.utils.data.Dataset):
        targets = MADE.train.targets

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, i):
            return MADE.train.inputs["x"][i] + torch.randn(12, generator=noise), self.targets[i]

    for given, name in (({"train": Noisy()}, "forget"), ({"holdout": Noisy()}, "holdout")):
        seen = []
        with pytest.raises(DataError, match=f"`{name}` to give the same row each time"):
            unlearn(MADE.trained(), Scripted(seen=seen), MADE.absent(3, **given), seed=0)
        assert not seen


def test_an_empty_holdout_is_refused():
    empty = (torch.zeros(0, 12), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="`holdout` to hold at least one row, got none"):
        unlearn(MADE.trained(), MaskClass(), MADE.absent(3, holdout=empty), seed=0)


def test_holdout_that_overlaps_is_refused():
    with pytest.raises(TaskError, match="also in the forget set"):
        unlearn(MADE.trained(), MaskClass(), MADE.absent(3, holdout=MADE.train), seed=0)


def _statistics(model, rows):
    return collect_statistics(model, find_head(model, rows.batch(torch.arange(2))[0]), rows)[0]


def test_statistics_are_checked():
    rows = as_rows(MADE.train)
    model, other = MADE.trained(), MADE.trained()
    with torch.no_grad():
        other.body[0].bias.add_(0.1)
    task = MADE.absent(3, statistics=_statistics(other, rows))
    with pytest.raises(StatisticsError, match="those of another"):
        unlearn(model, LeastSquaresRemoval(), task, seed=0)
    partly = _statistics(model, rows.select((rows.labels != 3).nonzero().flatten()))
    with pytest.raises(TaskError, match="cover every forget record"):
        unlearn(model, LeastSquaresRemoval(), MADE.absent(3, statistics=partly), seed=0)
    forget = rows.select((rows.labels == 3).nonzero().flatten())
    pair = forget.batch(torch.arange(len(forget)))
    numbered = forget_classes(None, {3}, forget=pair, statistics=_statistics(model, rows))
    with pytest.raises(TaskError, match="explicit `ids`"):
        unlearn(model, LeastSquaresRemoval(), numbered, seed=0)


def test_forget_rows_alone_and_statistics_are_enough():
    rows = as_rows(MADE.train)
    model = MADE.trained()
    forget = rows.select((rows.labels == 3).nonzero().flatten())
    pair = forget.batch(torch.arange(len(forget)))
    task = forget_classes(
        None, {3}, forget=pair, ids=forget.ids, statistics=_statistics(model, rows)
    )
    alone = unlearn(model, LeastSquaresRemoval(), task, seed=0)
    whole = unlearn(model, LeastSquaresRemoval(), MADE.absent(3), seed=0)
    torch.testing.assert_close(alone.model.head.weight, whole.model.head.weight)
    assert alone.record.retain_count is None
    assert alone.record.outcome.outcome is Outcome.UNDETERMINED


@pytest.mark.parametrize(
    "method", [MaskClass(), NaivePrototypeSurgery(), PrototypeSurgery(), LeastSquaresRemoval()]
)
def test_record_requests_are_refused_by_name_with_advice(method):
    with pytest.raises(UnsupportedError, match=f"{method.info.name}.*retrain or fine-tune"):
        unlearn(MADE.trained(), method, MADE.unseen(0, 1, 2), seed=0)


# --- what a method is handed ---------------------------------------------------------------------


def test_only_declared_needs_are_handed():
    method = Scripted(act=_nudge)
    unlearn(MADE.trained(), method, MADE.absent(3), seed=0)
    task, run = method.seen[0]
    assert (task.retain, task.statistics, task.training) == (None, None, None)
    assert set(task.forget.labels.tolist()) == {3}
    assert run.kept == (0, 1, 2, 4)
    assert (run.classes, run.head.name) == (5, "head")


def test_all_declared_needs_are_handed():
    method = Greedy(act=_nudge)
    task = MADE.absent(3)
    result = unlearn(MADE.trained(), method, task, seed=0)
    handed, _ = method.seen[0]
    assert handed.training is task.training
    assert handed.retain.ids == task.retain.ids
    assert handed.statistics.covers([*task.forget.ids, *task.retain.ids])
    assert result.statistics.covers(task.retain.ids)
    assert not result.statistics.covers(task.forget.ids)


def test_methods_see_tune_only():
    method = Scripted(act=_nudge)
    result = unlearn(MADE.trained(), method, MADE.absent(3), seed=0)
    task, _ = method.seen[0]
    assert len(task.holdout) == result.record.tune_count == 160
    assert result.record.judge_count == 160
    assert set(task.holdout.labels.unique().tolist()) == {0, 1, 2, 3, 4}


def test_the_split_is_fixed_by_the_first_request():
    first, second = Scripted(act=_nudge), Scripted(act=_nudge)
    result = unlearn(MADE.trained(), first, MADE.absent(3), seed=0)
    unlearn(result, second, MADE.absent(1), seed=77)
    assert first.seen[0][0].holdout.ids == second.seen[0][0].holdout.ids


def test_a_method_works_on_a_private_copy_in_eval_mode():
    given = MADE.untidy()

    def act(model, _task, _run):
        assert model is not given
        assert not any(m.training for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
        return _nudge(model, _task, _run)

    unlearn(given, Scripted(act=act), MADE.absent(3), seed=0)


def test_the_generator_of_the_run_follows_the_seed():
    drawn = {}
    for seed in (1, 1, 2):

        def act(model, task, run, seed=seed):
            drawn.setdefault(seed, []).append(
                (torch.rand(1, generator=run.generator).item(), torch.rand(1).item())
            )
            return _nudge(model, task, run)

        unlearn(MADE.trained(), Scripted(act=act), MADE.absent(3), seed=seed)
    assert drawn[1][0] == drawn[1][1] != drawn[2][0]


def test_progress_notes_and_scalars_reach_the_caller_and_the_record():
    calls = []

    def act(model, task, run):
        run.report("work", 1, 2)
        run.log("loss", 0.5)
        run.log("loss", 0.25)
        run.note("read this")
        run.logits(model, task.forget)
        return _nudge(model, task, run)

    result = unlearn(
        MADE.trained(),
        Scripted(act=act),
        MADE.absent(3),
        seed=0,
        progress=lambda *told: calls.append(told),
    )
    assert calls == [("work", 1, 2)]
    assert result.record.log["loss"] == (0.5, 0.25)
    assert "read this" in result.record.notes
    assert result.record.cost.samples_touched == len(MADE.absent(3).forget)


# --- outcomes and records ------------------------------------------------------------------------


def test_no_op():
    result = unlearn(MADE.trained(), Scripted(), MADE.absent(3), seed=0)
    assert result.record.outcome.outcome is Outcome.NO_OP
    assert result.record.digest_before == result.record.digest_after


def test_ineffective_done_and_wrecked():
    def wreck(model, _task, _run):
        with torch.no_grad():
            model.head.weight.copy_(model.head.weight.roll(1, 0))
        return model

    outcomes = [
        unlearn(MADE.trained(), method, MADE.absent(3), seed=0).outcome.outcome
        for method in (Scripted(act=_nudge), MaskClass(), Scripted(act=wreck))
    ]
    assert outcomes == [Outcome.INEFFECTIVE, Outcome.DONE, Outcome.WRECKED]


def test_undetermined_without_holdout():
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(3, holdout=None), seed=0)
    assert result.record.outcome.outcome is Outcome.UNDETERMINED
    assert (result.record.tune_count, result.record.judge_count) == (0, 0)


def test_retrain_is_judged_like_any_other_for_a_class():
    poor = Training(MADE.factory, lambda model, *_, **__: model)
    result = unlearn(MADE.trained(), Retrain(), MADE.absent(3, training=poor), seed=0)
    assert result.record.outcome.outcome is Outcome.WRECKED
    assert "less than half above chance" in result.record.outcome.reason

    def on_everything(model, _rows, *, generator, device):
        return MADE.recipe(model, MADE.train, generator=generator, device=device)

    false = Training(MADE.factory, on_everything)
    result = unlearn(MADE.trained(), Retrain(), MADE.absent(3, training=false), seed=1)
    assert result.record.outcome.outcome is Outcome.INEFFECTIVE
    honest = unlearn(MADE.trained(), Retrain(), MADE.absent(3), seed=0)
    assert honest.record.outcome.outcome is Outcome.DONE


def test_limits_are_obeyed_and_recorded():
    strict = Limits(class_bound=5.0)
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0, limits=strict)
    assert result.record.outcome.outcome is Outcome.UNDETERMINED
    assert result.record.limits == strict
    usual = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0)
    assert usual.record.outcome.outcome is Outcome.DONE
    assert usual.record.limits == Limits()


def test_the_record_tells_no_ids_and_no_forgotten_class():
    named = [f"patient-{i}" for i in range(len(MADE.train))]
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(3, ids=named), seed=0)
    text = to_json(result.record)
    assert "patient" not in text
    assert "classes" not in {f.name for f in dataclasses.fields(result.record)}
    assert not {"ids", "classes"} & set(json.loads(text))
    again = unlearn(MADE.trained(), MaskClass(), MADE.absent(3, ids=named), seed=0)
    assert result.record.commitment != again.record.commitment, "the salt must be fresh"


def test_costs_are_counted():
    record = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0).record
    assert record.cost.parameters == sum(p.numel() for p in MADE.trained().parameters())
    assert record.cost.parameters_changed == 21
    assert record.cost.buffers_changed == 0
    assert record.cost.seconds >= 0
    assert record.cost.peak_bytes > 0
    assert (record.forget_count, record.retain_count) == (32, 128)


def test_membership_outcome_of_a_record_request():
    method = FineTune(epochs=1)
    record = unlearn(MADE.trained(), method, MADE.unseen(*range(10)), seed=0).record
    assert (record.aim, record.scope) == ("unseen", "records")
    assert record.outcome.outcome in set(Outcome)
    assert "loss_auc_before" in record.outcome.figures


def test_overlap_within_one_percent_is_dropped_counted_and_told():
    forget = MADE.train.inputs["x"][MADE.train.targets == 3][:2]
    x = torch.cat([MADE.holdout.inputs["x"], forget])
    y = torch.cat([MADE.holdout.targets, torch.tensor([3, 3])])
    record = unlearn(MADE.trained(), MaskClass(), MADE.absent(3, holdout=(x, y)), seed=0).record
    assert record.dropped_from_holdout == 2
    assert any("2 holdout rows" in note for note in record.notes)
    assert record.tune_count + record.judge_count == 320


# --- methods that break a promise ----------------------------------------------------------------


def _share(_model, _task, _run):
    return SHARED["model"]


SHARED = {}


def _nan(model, _task, _run):
    with torch.no_grad():
        model.head.weight[0, 0] = math.nan
    return model


def _hook(model, _task, _run):
    model.register_forward_hook(lambda *_: None)
    return _nudge(model, _task, _run)


def _shape(model, _task, _run):
    model.head = nn.Linear(20, 4)
    return model


def _dtype(model, _task, _run):
    return model.double()


BROKEN = {
    "returns nothing": (lambda *_: None, "to return a module, got NoneType"),
    "not finite": (_nan, "finite weights .*'head.weight'"),
    "hooks": (_hook, "to remove its hooks"),
    "shapes": (_shape, "shapes"),
    "dtypes": (_dtype, "dtypes"),
    "returns the original": (_share, "shares memory with the given model"),
}


@pytest.mark.parametrize(("act", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_method_is_found_out(act, words):
    model = SHARED["model"] = MADE.trained()
    before = digest_of(state_of(model))
    with pytest.raises(ContractError, match=words):
        unlearn(model, Scripted(act=act), MADE.absent(3), seed=0)
    assert digest_of(state_of(model)) == before


def test_a_method_that_edits_the_original_is_found_out():
    model = MADE.trained()

    def act(copy, _task, _run):
        with torch.no_grad():
            model.head.bias.add_(1.0)
        return _nudge(copy, _task, _run)

    with pytest.raises(ContractError, match="the given model changed"):
        unlearn(model, Scripted(act=act), MADE.absent(3), seed=0)


def test_undeclared_buffer_changes_are_found_out():
    made = toy("cnn")

    def act(model, _task, _run):
        model.norm.running_mean.add_(1.0)
        return model

    with pytest.raises(ContractError, match="to leave buffers alone"):
        unlearn(made.trained(), Scripted(act=act), made.absent(3), seed=0)


def test_modes_gradients_and_flags_are_put_right_for_the_method():
    def act(model, _task, _run):
        model.train().requires_grad_(True)
        model.head.bias.grad = torch.zeros(5)
        return _nudge(model, _task, _run)

    given = MADE.untidy()
    edited = unlearn(given, Scripted(act=act), MADE.absent(3), seed=0).model
    assert [m.training for m in edited.modules()] == [m.training for m in given.modules()]
    flags = [p.requires_grad for p in edited.parameters()]
    assert flags == [p.requires_grad for p in given.parameters()]
    assert all(p.grad is None for p in edited.parameters())


# --- sequences -----------------------------------------------------------------------------------


def test_the_same_class_twice_is_refused():
    first = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0)
    with pytest.raises(TaskError, match="got class 3 again"):
        unlearn(first, MaskClass(), MADE.absent(3), seed=0)
    with pytest.raises(TaskError, match="got class 3 again"):
        unlearn(first, MaskClass(), MADE.absent(1, 3), seed=0)


def test_the_same_record_twice_is_refused():
    first = unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(4, 5), seed=0)
    with pytest.raises(TaskError, match="got '5' again"):
        unlearn(first, FineTune(epochs=1), MADE.unseen(5, 6), seed=0)


def test_a_sequence_that_leaves_one_class_is_refused():
    result = unlearn(MADE.trained(), MaskClass(), MADE.absent(0, 1), seed=0)
    result = unlearn(result, MaskClass(), MADE.absent(2), seed=0)
    with pytest.raises(TaskError, match="a request that leaves 1"):
        unlearn(result, MaskClass(), MADE.absent(3), seed=0)


def test_forgotten_records_never_serve_again():
    first = unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(0, 6), seed=0)
    second = unlearn(first, MaskClass(), MADE.absent(3), seed=0)
    method = Keen(act=_nudge)
    third = unlearn(second, method, MADE.absent(1), seed=0)
    retain = method.seen[0][0].retain
    assert not {"0", "6"} & set(retain.ids)
    assert set(retain.labels.tolist()) == {0, 2, 4}
    assert third.record.retain_count == len(retain) == 95
    assert third.record.earlier_requests == 2
    assert third.record.forget_count == 31, "record 6 is of class 1, and went before it"
    assert "1 records of the request were forgotten before" in third.record.notes
    assert [r.classes for r in third.forgotten] == [set(), {3}, {1}]
    assert method.seen[0][1].kept == (0, 2, 4)


def test_holdout_rows_forgotten_earlier_are_left_out_later():
    first = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0)
    row = MADE.train.inputs["x"][MADE.train.targets == 3][:1]
    x = torch.cat([MADE.holdout.inputs["x"], row])
    y = torch.cat([MADE.holdout.targets, torch.tensor([3])])
    second = unlearn(first, MaskClass(), MADE.absent(1, holdout=(x, y)), seed=0)
    assert second.record.dropped_from_holdout == 1


def test_an_earlier_class_that_comes_back_is_found():
    first = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0)

    def act(model, _task, _run):
        model.load_state_dict(MADE.trained().state_dict())
        with torch.no_grad():
            model.head.weight[1] = 0.0
            model.head.bias[1] = -100.0
        return model

    second = unlearn(first, Scripted(act=act), MADE.absent(1), seed=0)
    assert second.record.outcome.outcome is Outcome.INEFFECTIVE
    assert "records of an earlier request came back" in second.record.outcome.reason


def test_backbone_edits_void_the_statistics():
    first = unlearn(MADE.trained(), LeastSquaresRemoval(), MADE.absent(3), seed=0)
    assert first.statistics is not None

    def act(model, _task, _run):
        with torch.no_grad():
            model.body[0].bias.add_(0.01)
        return model

    second = unlearn(first, Scripted(act=act), MADE.absent(1), seed=0)
    assert second.statistics is None
    assert any("statistics are void" in note for note in second.record.notes)


def test_masking_many_classes_in_a_row_keeps_the_biases_in_range():
    result = MADE.trained()
    for label in (3, 1, 0):
        result = unlearn(result, MaskClass(), MADE.absent(label), seed=0)
    first, last = (float(result.model.head.bias[c].detach()) for c in (3, 0))
    assert last > 3 * first, "each mask must not multiply the range of the one before"


def test_every_refusal_is_an_expunge_error():
    with pytest.raises(ExpungeError):
        unlearn(MADE.trained(), MaskClass(), forget_indices(MADE.train, [0]), seed=0)


def _class_rows(made, label, n=None):
    x, y = made.train.inputs["x"], made.train.targets
    return x[y == label][:n], y[y == label][:n]


def test_forget_rows_given_alone_do_not_collide_between_requests():
    """Row numbers of two files mean different records: the second request is served whole."""
    made = toy("mlp")
    model = made.trained()
    first = expunge.forget_classes(None, {3}, forget=_class_rows(made, 3, 10), holdout=made.holdout)
    second = expunge.forget_classes(None, {1}, forget=_class_rows(made, 1), holdout=made.holdout)
    one = expunge.unlearn(model, expunge.MaskClass(), first, seed=0)
    two = expunge.unlearn(one, expunge.MaskClass(), second, seed=0)
    assert two.record.forget_count == len(_class_rows(made, 1)[0])
    assert len(two.forgotten) == 2


def test_works_inside_no_grad_and_inference_mode():
    made = toy("mlp")
    model, task = made.trained(), made.absent(1)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            result = expunge.unlearn(model, expunge.FineTune(epochs=1), task, seed=0)
        assert result.record.cost.parameters_changed > 0


def test_logits_that_are_not_numbers_are_refused():
    made = toy("mlp")

    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = made.trained()

        def forward(self, x):
            z = self.inner(x)
            return torch.where((z.argmax(1) == 2)[:, None], torch.nan, z)

    with pytest.raises(expunge.ExpungeError, match="Expected logits that are numbers, got NaN"):
        expunge.unlearn(Broken(), expunge.FineTune(epochs=1), made.absent(1), seed=0)


def test_bfloat16_inputs_are_served():
    made = toy("mlp")
    x, y = made.train.inputs["x"].bfloat16(), made.train.targets
    hx, hy = made.holdout.inputs["x"].bfloat16(), made.holdout.targets
    task = expunge.forget_classes((x, y), {1}, holdout=(hx, hy))
    result = expunge.unlearn(made.trained().bfloat16(), expunge.MaskClass(), task, seed=0)
    assert result.outcome.figures["forget_after"] == 0.0


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("batch_size", 0), ("lr", -1.0)])
def test_training_settings_out_of_range_are_refused(name, value):
    made = toy("mlp")
    with pytest.raises(expunge.ExpungeError, match=f"Expected `{name}`"):
        expunge.unlearn(made.trained(), expunge.FineTune(**{name: value}), made.absent(1), seed=0)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (expunge.MaskClass(margin=-1.0), "Expected `margin` to be a number above 0"),
        (expunge.NaivePrototypeSurgery(ridge=-1.0), "Expected `ridge` to be a number from 0"),
        (expunge.PrototypeSurgery(ridge=-1.0), "Expected `ridge` to be a number from 0"),
    ],
    ids=repr,
)
def test_settings_without_a_meaning_are_refused(method, message):
    made = toy("mlp")
    with pytest.raises(expunge.ExpungeError, match=message):
        expunge.unlearn(made.trained(), method, made.absent(1), seed=0)


def test_inputs_that_are_not_numbers_are_no_augmentation():
    made = toy("mlp")
    x = made.train.inputs["x"].clone()
    x[made.train.targets == 1] = torch.nan
    row = int((made.train.targets == 1).nonzero()[0, 0])
    words = f"Expected finite inputs in `train`, got NaN or infinity in row {row}"
    with pytest.raises(expunge.ExpungeError, match=words):
        expunge.forget_classes((x, made.train.targets), {1}, holdout=made.holdout)


def test_a_start_from_a_rejected_run_is_noted():
    made = toy("mlp")
    barely = expunge.FineTune(epochs=1, lr=1e-6, weight_decay=0.0)
    rejected = expunge.unlearn(made.trained(), barely, made.absent(1), seed=0)
    assert not rejected.outcome.outcome.accepted
    result = expunge.unlearn(rejected, expunge.MaskClass(), made.absent(3), seed=0)
    assert any("the run this one starts from ended" in note for note in result.record.notes)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8", None], ids=repr)
def test_a_batch_size_that_is_no_count_is_refused_by_both_doors(size):
    made = toy("mlp")
    words = re.escape(f"Expected `batch_size` to be an integer from 1, got {size!r}.")
    task = made.absent(1)
    with pytest.raises(InputError, match=words):
        expunge.unlearn(made.trained(), expunge.MaskClass(), task, seed=0, batch_size=size)
    result = expunge.unlearn(made.trained(), expunge.MaskClass(), task, seed=0, batch_size=64)
    with pytest.raises(InputError, match=words):
        expunge.audit(result, task, batch_size=size)


# --- patches on linear regions: what counts as changed -------------------------------------------


def _pair(data, rows=slice(None)):
    return data.inputs["x"][rows], data.targets[rows]


def _patch_elements(model):
    return sum(
        tensor.numel() for tensor in (model.active, model.steepness, model.owner, model.shift)
    )


def _published(model, wanted, train=None, seed=0):
    task = forget_indices(
        train or _pair(MADE.train), wanted, holdout=_pair(MADE.holdout, slice(100, 300))
    )
    return unlearn(model, Prune.as_published(), task, seed=seed)


def test_patches_count_as_changed_parameters_and_the_untouched_base_does_not():
    base = sum(p.numel() for p in MADE.trained().parameters())
    first = _published(MADE.trained(), range(5))
    second = _published(first, range(5, 10), seed=1)
    sizes = [0, _patch_elements(first.model), _patch_elements(second.model)]
    assert sizes[0] < sizes[1] < sizes[2]
    for result, before, after in zip((first, second), sizes[:-1], sizes[1:], strict=True):
        # the published patch forces errors, which tells the records from unseen rows
        assert result.outcome.why in (Reason.NEW_SIGNAL, Reason.SIGNAL_LEFT)
        cost = result.record.cost
        assert cost.parameters_changed == after - before
        assert (cost.parameters, cost.buffers_changed) == (base + after, 0)


def test_published_prune_without_a_patch_is_a_no_op():
    x, y = _pair(MADE.train)
    wrong = y.clone()
    wrong[:5] = (MADE.trained()(x[:5]).argmax(1) + 1) % 5
    first = _published(MADE.trained(), range(5), train=(x, wrong))
    assert first.outcome.outcome is Outcome.NO_OP
    assert first.record.cost.parameters_changed == 0


def test_retraining_a_patched_model_counts_the_base_alone():
    first = _published(MADE.trained(), range(5))
    cost = unlearn(first, Retrain(), MADE.unseen(7), seed=0).record.cost
    base = sum(p.numel() for p in MADE.trained().parameters())
    assert 0 < cost.parameters_changed <= cost.parameters == base


# --- records of earlier requests are judged again -------------------------------------------------

NOISE = torch.randint(5, (160,), generator=torch.Generator().manual_seed(3))
LEARNT = (MADE.train.inputs["x"], NOISE)
UNSEEN = unseen(MADE.holdout.inputs["x"], 1600)


def _wide():
    return nn.Sequential(nn.Linear(12, 256), nn.ReLU(), nn.Linear(256, 5))


@cache
def _knowing(*rows):
    """Weights of a net that learnt these rows by heart: their labels are noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _wide()
    chosen = torch.tensor(rows)
    recipe = Recipe(epochs=150, batch_size=40, lr=0.2, weight_decay=0.0)
    return recipe(
        model,
        (LEARNT[0][chosen], LEARNT[1][chosen]),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    ).state_dict()


FIRST, SECOND, THIRD = tuple(range(50)), tuple(range(50, 100)), tuple(range(100, 160))


def _of_all():
    model = _wide()
    model.load_state_dict(_knowing(*FIRST, *SECOND, *THIRD))
    return model


def _becomes(model, *rows, wanted, holdout=UNSEEN, method=Scripted, **given):
    """A request served by a method that returns the net that knows `rows`."""

    def act(copied, _task, _run):
        copied.load_state_dict(_knowing(*rows))
        return copied

    task = forget_indices(LEARNT, wanted, holdout=holdout, **given)
    return unlearn(model, method(act=act), task, seed=0, limits=LOOSE)


def test_earlier_records_that_come_back_make_a_run_ineffective():
    first = _becomes(_of_all(), *SECOND, *THIRD, wanted=FIRST)
    assert first.outcome.outcome is Outcome.DONE
    still = _becomes(first, *THIRD, wanted=SECOND)
    assert still.outcome.outcome is Outcome.DONE
    figures = still.outcome.figures
    assert 0 < figures["earlier_excess_after"] < figures["earlier_smallest_visible_excess"]
    back = _becomes(first, *FIRST, *THIRD, wanted=SECOND)
    assert back.outcome.outcome is Outcome.INEFFECTIVE
    assert "records of an earlier request came back: request 1, their membership signal rose" in (
        back.outcome.reason
    )
    assert back.outcome.figures["earlier_excess_after"] > 0.3
    assert "loss_auc_after" in back.outcome.figures


def test_the_request_that_came_back_is_named_by_number():
    second = _becomes(_becomes(_of_all(), *SECOND, *THIRD, wanted=FIRST), *THIRD, wanted=SECOND)
    third = _becomes(second, *SECOND, *THIRD[30:], wanted=THIRD[:30])
    assert third.outcome.outcome is Outcome.INEFFECTIVE
    assert "came back: request 2, " in third.outcome.reason
    assert "request 1" not in third.outcome.reason


def test_retraining_is_judged_on_earlier_records_like_any_other():
    training = Training(_wide, lambda model, *_, **__: model)
    first = _becomes(_of_all(), *SECOND, *THIRD, wanted=FIRST)
    back = _becomes(first, *FIRST, *THIRD, wanted=SECOND, method=Trainer, training=training)
    assert (back.outcome.outcome, back.outcome.why) == (Outcome.INEFFECTIVE, Reason.CAME_BACK)


def test_what_could_not_be_judged_again_is_noted():
    few = _becomes(_of_all(), *SECOND, *THIRD, wanted=FIRST[:1])
    second = _becomes(few, *THIRD, wanted=SECOND)
    note = "records of earlier requests were not judged again: too few (request 1)"
    assert note in second.record.notes
    blind = _becomes(few, *THIRD, wanted=SECOND, holdout=None)
    note = "records of earlier requests were not judged again: there is no holdout (request 1)"
    assert note in blind.record.notes


def test_what_a_certificate_proves_again_needs_no_note():
    result = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    again = unlearn(result, Prune(form="gated"), MADE.unseen(5), seed=0)
    assert not any("not judged again" in note for note in again.record.notes)
    void = unlearn(result, FineTune(epochs=1), MADE.unseen(5), seed=0)
    assert any("not judged again: too few (request 1)" in note for note in void.record.notes)


# --- ids that name other rows than before ---------------------------------------------------------


@pytest.mark.parametrize("wanted", [0, 1, 5])
def test_row_numbers_of_a_shrunken_set_are_refused_by_label(wanted):
    first = unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(0, 1, 2), seed=0)
    shrunk = forget_indices(_pair(MADE.train, slice(3, None)), [wanted])
    with pytest.raises(DataError, match=r"row '.' of `train` .* of another class.*give rows `ids`"):
        unlearn(first, FineTune(epochs=1), shrunk, seed=0)


def test_row_numbers_of_a_shrunken_set_are_refused_by_content():
    first = unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(0, 1, 2), seed=0)
    same_labels = _pair(MADE.train, slice(5, None))
    assert torch.equal(same_labels[1][:3], MADE.train.targets[:3])
    with pytest.raises(DataError, match=r"row '0' of `train` .* with other content"):
        unlearn(first, FineTune(epochs=1), forget_indices(same_labels, [9]), seed=0)


def test_row_numbers_after_a_class_request_are_checked_too():
    first = unlearn(MADE.trained(), MaskClass(), MADE.absent(3), seed=0)
    stays = (MADE.train.targets != 3).nonzero().flatten()
    with pytest.raises(DataError, match="of another class"):
        unlearn(first, MaskClass(), forget_classes(_pair(MADE.train, stays), {1}), seed=0)


def test_ids_that_stay_the_same_serve_on_a_shrunken_set():
    names = [f"p{i}" for i in range(160)]
    task = forget_indices(MADE.train, [0, 1, 2], ids=names)
    first = unlearn(MADE.trained(), FineTune(epochs=1), task, seed=0)
    shrunk = forget_indices(_pair(MADE.train, slice(2, None)), [3], ids=names[2:])
    second = unlearn(first, FineTune(epochs=1), shrunk, seed=0)
    assert second.record.retain_count == 156


def test_only_rows_with_a_forgotten_id_are_compared():
    reads = []
    first = unlearn(MADE.trained(), Scripted(act=_nudge), MADE.unseen(3, 9), seed=0)
    task = forget_indices(MADE.train.watched(reads.append), [20])
    assert reads == []
    found_again(first.forgotten[0], task.retain)
    assert sorted(reads) == [3, 9]


# --- no rows left --------------------------------------------------------------------------------


def _named(method):
    return method.info.name


def _subset(data, rows):
    return Subset(data, range(len(data))[rows])


@pytest.mark.parametrize("method", [FineTune(epochs=1), Retrain(), Prune()], ids=_named)
@pytest.mark.parametrize("make", [_pair, _subset])
def test_a_request_that_leaves_no_row_is_refused(method, make):
    train = make(MADE.train, slice(0, 10))
    given = {"holdout": MADE.holdout, "training": MADE.training()}
    task = forget_indices(train, range(4), **given)
    first = unlearn(MADE.trained(), Scripted(act=_nudge), task, seed=0)
    with pytest.raises(TaskError, match="some rows of `train` to stay, got none"):
        unlearn(first, method, forget_indices(train, range(4, 10), **given), seed=0)


def test_sums_over_no_row_are_refused():
    train = Subset(MADE.train, range(10))  # rows 3 and 8 are of class 3
    records = forget_indices(train, [0, 1, 2, 4, 5, 6, 7, 9])
    first = unlearn(MADE.trained(), Scripted(act=_nudge), records, seed=0)
    with pytest.raises(TaskError, match="some rows of `train` to stay, got none"):
        unlearn(first, LeastSquaresRemoval(), forget_classes(train, {3}), seed=0)
    assert unlearn(first, MaskClass(), forget_classes(train, {3}), seed=0).outcome


@pytest.mark.parametrize("make", [_pair, _subset])
def test_one_holdout_row_a_class_leaves_no_tune_rows(make):
    task = MADE.unseen(0, 1, holdout=make(MADE.holdout, slice(0, 5)))
    for door in (rehearse, unlearn):
        with pytest.raises(TaskError, match=r"got none in the tune half\. Give a larger holdout"):
            door(MADE.trained(), Prune(), task, seed=0)
    assert rehearse(MADE.trained(), Prune(spec="mispredict"), task, seed=0).tune_count < 5


def test_integer_inputs_are_refused_by_prune_as_published_before_work():
    class Floated(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = MADE.trained()

        def forward(self, x):
            return self.net(x.float())

    whole = ((MADE.train.inputs["x"] * 100).long(), MADE.train.targets)
    task = forget_indices(whole, [0, 1], holdout=None)
    for door in (rehearse, unlearn):
        with pytest.raises(UnsupportedError, match=r"Expected floating inputs .* got torch\.int64"):
            door(Floated(), Prune.as_published(), task, seed=0)


def test_an_input_that_this_request_forgets_too_is_not_judged_as_an_earlier_one():
    x, y = MADE.train.inputs["x"].clone(), MADE.train.targets.clone()
    x[7], y[7] = x[0], y[0]
    train = ToyData({"x": x}, y)
    first = unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(0, train=train), seed=0)
    for row, noted in ((7, False), (8, True)):
        second = unlearn(first, FineTune(epochs=1), MADE.unseen(row, train=train), seed=0)
        assert noted == any("not judged again" in note for note in second.record.notes)
