"""The laws of each method, on models small enough to know the answer."""

import itertools
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from expunge import (
    METHODS,
    FineTune,
    LeastSquaresRemoval,
    MaskClass,
    NaivePrototypeSurgery,
    PrototypeSurgery,
    Recipe,
    Retrain,
    Training,
    unlearn,
)
from expunge.data.views import as_rows
from expunge.errors import InputError, ModelError, StatisticsError, UnsupportedError
from expunge.network.heads import find_head, head_matrix, set_head_matrix
from expunge.network.passes import logits_of
from expunge.network.state import digest_of, state_of
from expunge.statistics.collect import collect_statistics
from expunge.statistics.sums import from_centred
from expunge.task import Given
from expunge.testing import contract_checks, toy
from expunge.unlearning.door import rehearse

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
MADE = toy("cnn")
ROWS = as_rows(MADE.train)
X64 = MADE.train.inputs["x"].double()
DOUBLE = (X64, MADE.train.targets)


def _double():
    return MADE.trained().double()


def _matrix(model):
    return head_matrix(model, find_head(model, X64[:2].to(next(model.parameters()).dtype)))


def _task(*classes, **given):
    given = {"train": DOUBLE, "holdout": None} | given
    return MADE.absent(*classes, **given)


class NoBias(nn.Module):
    """The toy CNN with a head without bias."""

    def __init__(self):
        super().__init__()
        self.body = MADE.trained()
        self.body.fc = nn.Identity()
        self.fc = nn.Linear(32, 5, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(MADE.trained().fc.weight)

    def forward(self, x):
        return self.fc(self.body(x))


# --- MaskClass -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), scale=st.floats(0.0, 5.0))
def test_mask_answers_as_the_original_among_the_others(seed, scale):
    original = MADE.trained()
    edited = unlearn(original, MaskClass(), MADE.absent(3, 1), seed=0).model
    noise = torch.randn(64, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    rows = as_rows((scale * noise, torch.zeros(64).long()))
    before, after = (logits_of(m, rows, batch_size=64, device=CPU) for m in (original, edited))
    before[:, [1, 3]] = -torch.inf
    assert torch.equal(after.argmax(1), before.argmax(1))
    others = [0, 2, 4]
    assert torch.equal(after[:, others], before[:, others])


def test_mask_leaves_other_rows_bit_equal():
    original = MADE.trained()
    edited = unlearn(original, MaskClass(), MADE.absent(3), seed=0).model
    others = [0, 1, 2, 4]
    assert torch.equal(edited.fc.weight[others], original.fc.weight[others])
    assert torch.equal(edited.fc.bias[others], original.fc.bias[others])
    assert not edited.fc.weight[3].any()
    assert torch.isfinite(edited.fc.bias).all()


def test_mask_stays_finite_in_half_precision():
    model = MADE.trained().half()
    task = MADE.absent(3, train=(X64.half(), MADE.train.targets), holdout=None)
    edited = unlearn(model, MaskClass(), task, seed=0).model
    assert torch.isfinite(edited.fc.bias).all()


@pytest.mark.parametrize("door", [unlearn, rehearse])
def test_mask_needs_a_bias(door):
    with pytest.raises(UnsupportedError, match="head with a bias for MaskClass, got 'fc'"):
        door(NoBias(), MaskClass(), MADE.absent(3), seed=0)


# --- NaivePrototypeSurgery -----------------------------------------------------------------------


def test_naive_surgery_leaves_the_bias_and_says_which_start_it_used():
    model = _double()
    result = unlearn(model, NaivePrototypeSurgery(), _task(3), seed=0)
    assert torch.equal(result.model.fc.bias, model.fc.bias)
    assert "W₀ = 0: the initial weights were not given" in result.record.notes
    given = unlearn(
        model, NaivePrototypeSurgery(), _task(3), seed=0, initial=state_of(MADE.factory())
    )
    assert not any("W₀ = 0" in note for note in given.record.notes)
    assert not torch.equal(given.model.fc.weight, result.model.fc.weight)


def test_naive_surgery_on_the_own_row_leaves_the_others_bit_equal():
    model = _double()
    every = unlearn(model, NaivePrototypeSurgery(), _task(3), seed=0).model
    own = unlearn(model, NaivePrototypeSurgery(rows="own"), _task(3), seed=0).model
    others = [0, 1, 2, 4]
    assert torch.equal(own.fc.weight[others], model.fc.weight[others])
    assert torch.equal(own.fc.weight[3], every.fc.weight[3])
    assert not torch.equal(every.fc.weight[others], model.fc.weight[others])


def test_naive_surgery_is_the_stated_formula():
    model = _double()
    start = torch.full((5, 32), 0.01, dtype=torch.float64)
    features = _features(model)
    gram = features.T @ features
    part = features[MADE.train.targets == 3]
    ridge = 0.05 * float(torch.trace(gram)) / 32
    share = torch.linalg.solve(gram + ridge * torch.eye(32).double(), part.T @ part)
    expected = model.fc.weight - (model.fc.weight - start) @ share
    edited = unlearn(
        model, NaivePrototypeSurgery(ridge=0.05), _task(3), seed=0, initial={"fc.weight": start}
    ).model
    torch.testing.assert_close(edited.fc.weight, expected, atol=1e-9, rtol=1e-9)


def _features(model):
    caught = []
    handle = model.fc.register_forward_pre_hook(lambda _m, args: caught.append(args[0]))
    with torch.no_grad():
        model.eval()(X64)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (NaivePrototypeSurgery(rows="some"), '"all" or "own", got \'some\''),
        (NaivePrototypeSurgery(form="new"), '"ridged" or "published", got \'new\''),
        (PrototypeSurgery(labels="hard"), "got 'hard'"),
        (PrototypeSurgery(anchor="hope"), '"statistics" or "retain", got \'hope\''),
        (PrototypeSurgery(strength=0.0), "`strength` to be a number above 0, got 0.0"),
    ],
)
def test_wrong_settings_are_refused(method, words):
    with pytest.raises(InputError, match=words):
        unlearn(MADE.trained(), method, MADE.absent(3), seed=0)


def test_initial_weights_that_do_not_fit_are_refused():
    for initial, words in (
        ({}, "no such tensor"),
        ({"fc.weight": torch.zeros(2, 2)}, r"got \(2, 2\)"),
    ):
        for door in (rehearse, unlearn):
            with pytest.raises(ModelError, match=words):
                door(
                    MADE.trained(), NaivePrototypeSurgery(), MADE.absent(3), seed=0, initial=initial
                )


@pytest.mark.parametrize(
    "method",
    [NaivePrototypeSurgery(), PrototypeSurgery.small(), LeastSquaresRemoval()],
    ids=lambda m: m.info.name,
)
def test_statistics_without_ids_are_refused_before_work(method):
    model = MADE.trained()
    whole, _ = collect_statistics(model, find_head(model, MADE.train.inputs["x"][:2]), ROWS)
    task = MADE.absent(3, statistics=whole.without_ids())
    for door in (rehearse, unlearn):
        with pytest.raises(StatisticsError, match="got some without ids"):
            door(model, method, task, seed=0)


# --- LeastSquaresRemoval -------------------------------------------------------------------------


def _ridge_refit(features, labels, ridge):
    # Independent of the library: centred normal equations in numpy, the intercept free.
    h, t = features.numpy(), np.eye(5)[labels.numpy()] - 0.2
    centre, mid = h.mean(0), t.mean(0)
    gram = (h - centre).T @ (h - centre) + ridge * np.eye(h.shape[1])
    weight = np.linalg.solve(gram, (h - centre).T @ (t - mid)).T
    return np.concatenate([weight, (mid - weight @ centre)[:, None]], axis=1)


def test_removal_adds_the_change_of_a_refitted_ridge_head():
    model = _double()
    head = find_head(model, X64[:2])
    statistics, _ = collect_statistics(model, head, as_rows(DOUBLE))
    features, stays = _features(model), MADE.train.targets != 3
    before = _ridge_refit(features, MADE.train.targets, statistics.penalty)
    after = _ridge_refit(features[stays], MADE.train.targets[stays], statistics.penalty)
    expected = head_matrix(model, head).numpy() + statistics.scale * (after - before)
    result = unlearn(model, LeastSquaresRemoval(), _task(3, statistics=statistics), seed=0)
    np.testing.assert_allclose(head_matrix(result.model, head), expected, atol=1e-8)
    assert any(note.startswith("transplanted") for note in result.record.notes)


@pytest.mark.parametrize("factor", [1.0, 7.5])
def test_removal_is_exact_for_a_ridge_head_up_to_its_scale(factor):
    model = _double()
    head = find_head(model, X64[:2])
    statistics, _ = collect_statistics(model, head, as_rows(DOUBLE))
    own = from_centred(factor * statistics.ridge_head(), statistics.mean)
    set_head_matrix(model, head, own)
    statistics, _ = collect_statistics(model, head, as_rows(DOUBLE))
    assert statistics.scale == pytest.approx(factor)
    stays = MADE.train.targets != 3
    refit = _ridge_refit(_features(model)[stays], MADE.train.targets[stays], statistics.penalty)
    result = unlearn(model, LeastSquaresRemoval(), _task(3, statistics=statistics), seed=0)
    np.testing.assert_allclose(head_matrix(result.model, head), factor * refit, atol=1e-8)
    assert any(note.startswith("exact") for note in result.record.notes)


def test_removal_is_additive_and_independent_of_the_order():
    model = _double()
    together = unlearn(model, LeastSquaresRemoval(), _task(1, 2), seed=0)
    for order in itertools.permutations((1, 2)):
        result = model
        for label in order:
            result = unlearn(result, LeastSquaresRemoval(), _task(label), seed=0)
        torch.testing.assert_close(
            _matrix(result.model), _matrix(together.model), atol=1e-10, rtol=1e-10
        )
        torch.testing.assert_close(
            result.statistics.uncentred_gram(), together.statistics.uncentred_gram()
        )
        assert result.statistics.members == frozenset(
            result.statistics.member(str(i)) for i in range(160) if i % 5 not in (1, 2)
        )


def test_removal_with_given_statistics_is_additive_too():
    model = _double()
    statistics, _ = collect_statistics(model, find_head(model, X64[:2]), as_rows(DOUBLE))
    together = unlearn(model, LeastSquaresRemoval(), _task(0, 4, statistics=statistics), seed=0)
    for first, second in ((0, 4), (4, 0)):
        result = unlearn(model, LeastSquaresRemoval(), _task(first, statistics=statistics), seed=0)
        result = unlearn(result, LeastSquaresRemoval(), _task(second), seed=0)
        torch.testing.assert_close(
            _matrix(result.model), _matrix(together.model), atol=1e-10, rtol=1e-10
        )


def test_removal_works_without_a_bias():
    result = unlearn(NoBias(), LeastSquaresRemoval(), MADE.absent(3), seed=0)
    assert result.record.outcome.figures["forget_after"] <= 5.0


# --- PrototypeSurgery ----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["leave-out", "mask", "paper"])
@pytest.mark.parametrize("anchor", ["statistics", "retain"])
def test_surgery_forgets_and_keeps_the_rest(labels, anchor):
    method = PrototypeSurgery(labels=labels, anchor=anchor, tolerance=1e-3)
    result = unlearn(MADE.trained(), method, MADE.absent(3), seed=0)
    figures = result.record.outcome.figures
    assert figures["forget_after"] == 0.0
    assert figures["others_change"] >= -5.0


@pytest.mark.parametrize("anchor", ["statistics", "retain"])
def test_surgery_is_at_the_optimum_and_deterministic(anchor):
    method = PrototypeSurgery(anchor=anchor, refit_penalty=1e-2)
    digests = set()
    for seed in (0, 1):
        record = unlearn(MADE.trained(), method, MADE.absent(3), seed=seed).record
        digests.add(record.digest_after)
        assert record.log["solver_gradient"][0] <= method.tolerance
        assert not any("solver stopped" in note for note in record.notes)
    assert len(digests) == 1


def test_surgery_uses_the_retained_rows_where_asked():
    guarded = []
    task = MADE.absent(3, train=MADE.train.watched(guarded.append))
    retained = {int(i) for i in task.retain.ids}
    model = MADE.trained()
    statistics, _ = collect_statistics(model, find_head(model, X64[:2].float()), ROWS)
    task = task.having(Given(holdout=task.holdout, statistics=statistics))
    unlearn(model, PrototypeSurgery(tolerance=1e-3), task, seed=0)
    assert not retained & set(guarded)
    unlearn(model, PrototypeSurgery(anchor="retain", tolerance=1e-2), task, seed=0)
    assert retained <= set(guarded)


def test_surgery_without_retain_refuses_the_retain_anchor():
    task = MADE.absent(3).alone()
    with pytest.raises(UnsupportedError, match="training data for 'prototype-surgery'"):
        unlearn(MADE.trained(), PrototypeSurgery(anchor="retain"), task, seed=0)


@pytest.mark.parametrize("labels", ["leave-out", "mask", "paper"])
def test_surgery_commutes_with_the_names_of_the_classes(labels):
    # Rename class c to order[c] in data and head: the same edit, rows in the new order.
    order = torch.tensor([2, 4, 1, 0, 3])
    model, renamed = _double(), _double()
    with torch.no_grad():
        renamed.fc.weight[order] = model.fc.weight.clone()
        renamed.fc.bias[order] = model.fc.bias.clone()
    method = PrototypeSurgery(labels=labels, tolerance=1e-8)
    plain = unlearn(model, method, _task(3), seed=0).model
    other = unlearn(
        renamed, method, _task(int(order[3]), train=(X64, order[MADE.train.targets])), seed=0
    ).model
    torch.testing.assert_close(other.fc.weight[order], plain.fc.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other.fc.bias[order], plain.fc.bias, atol=1e-4, rtol=1e-4)


def test_a_stronger_anchor_moves_what_stays_less():
    model, stays = (
        MADE.trained(),
        as_rows(MADE.train).select((MADE.train.targets != 3).nonzero().flatten()),
    )
    before = logits_of(model, stays, batch_size=256, device=CPU)
    moves = []
    for strength in (1e-3, 1e-1, 10.0):
        method = PrototypeSurgery(strength=strength, tolerance=1e-4)
        edited = unlearn(model, method, MADE.absent(3), seed=0).model
        after = logits_of(edited, stays, batch_size=256, device=CPU)
        moves.append(float((after - before).square().mean()))
    assert moves[0] > moves[1] > moves[2]


def test_surgery_works_without_a_bias():
    model = NoBias()
    result = unlearn(model, PrototypeSurgery(tolerance=1e-3), MADE.absent(3), seed=0)
    assert result.record.outcome.figures["forget_after"] <= 5.0
    assert result.model.fc.bias is None


def test_labels_that_forbid_the_class_are_refused_where_it_stays():
    with pytest.raises(UnsupportedError, match="prototype-surgery"):
        unlearn(MADE.trained(), PrototypeSurgery(), MADE.unseen(0, 5), seed=0)


# --- every head edit -----------------------------------------------------------------------------

HEAD_EDITS = (
    MaskClass(),
    NaivePrototypeSurgery(),
    NaivePrototypeSurgery.as_published(),
    PrototypeSurgery(tolerance=1e-3),
    LeastSquaresRemoval(),
)


@pytest.mark.parametrize("method", HEAD_EDITS, ids=repr)
def test_head_edits_touch_the_head_only(method):
    model = MADE.trained()
    edited = unlearn(model, method, MADE.absent(3), seed=0).model
    changed = {n for n, t in state_of(edited).items() if not torch.equal(t, state_of(model)[n])}
    assert changed <= {"fc.weight", "fc.bias"}
    assert changed


# --- Retrain and FineTune ------------------------------------------------------------------------


def test_retrain_starts_from_the_factory_and_sees_only_what_stays():
    seen = []

    def fit(model, dataset, *, generator, device):
        rows = as_rows(dataset)
        seen.append((digest_of(state_of(model)), set(rows.labels.tolist()), len(rows)))
        return MADE.recipe(model, dataset, generator=generator, device=device)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = digest_of(state_of(MADE.factory()))
    task = MADE.absent(3, training=Training(MADE.factory, fit))
    unlearn(MADE.trained(), Retrain(), task, seed=5)
    assert seen == [(expected, {0, 1, 2, 4}, 128)]


def test_fine_tuning_sees_only_what_stays():
    counts = []
    for epochs in (1, 4):
        read = []
        task = MADE.absent(3, train=MADE.train.watched(read.append))
        unlearn(MADE.trained(), FineTune(epochs=epochs), task, seed=0)
        counts.append(np.bincount(read, minlength=160))
    more = counts[1] - counts[0]
    stays = (MADE.train.targets != 3).numpy()
    assert (more[stays] == 3).all()
    assert (more[~stays] == 0).all()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (FineTune(epochs=0), "Expected `epochs` to be an integer from 1, got 0"),
        (FineTune(lr=0.0), "Expected `lr` to be a number above 0, got 0.0"),
        (FineTune(batch_size=1.5), "Expected `batch_size` to be an integer from 1, got 1.5"),
        (FineTune(weight_decay=-1.0), "Expected `weight_decay` to be a number from 0, got -1.0"),
        (MaskClass(margin=0.0), "Expected `margin` to be a number above 0, got 0.0"),
    ],
    ids=repr,
)
def test_settings_are_refused_by_a_dry_run_too(method, message):
    for door in (unlearn, rehearse):
        with pytest.raises(InputError, match=message):
            door(MADE.trained(), method, MADE.absent(3), seed=0)


def test_fine_tuning_is_not_expected_to_forget():
    expected = FineTune.info.expected_failures
    assert set(expected) == {"class_forgotten", "sequence_stays_forgotten"}
    assert set(expected) <= {check.name for check in contract_checks(FineTune.small())}


# --- what the four methods without a family say of themselves ------------------------------------


@pytest.mark.parametrize("cls", METHODS, ids=lambda c: c.info.name)
def test_the_page_says_once_which_rows_are_read(cls):
    page = (ROOT / "docs" / "methods" / f"{cls.info.name}.md").read_text()
    assert page.lower().count("rows read") == 1
    assert f"| rows read | {cls.info.reads} |" in page.splitlines()


_WITHOUT_TORCH = """
import importlib, sys, types
for name in ("torch", "numpy", "jaxtyping"):
    sys.modules[name] = None
import expunge
methods = types.ModuleType("expunge.methods")
methods.__path__ = [f"{expunge.__path__[0]}/methods"]
sys.modules["expunge.methods"] = methods
for name in ("retrain", "finetune", "mask_class", "mu_mis.method"):
    module = importlib.import_module(f"expunge.methods.{name}")
    (cls,) = (getattr(module, name) for name in module.__all__)
    importlib.import_module("expunge.settings").check_settings(cls.small())
"""


def test_they_are_defined_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_published_preset():
    assert NaivePrototypeSurgery.as_published() == NaivePrototypeSurgery(form="published")


_OF_OTHERS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final
from expunge import Method
from expunge.records import MethodInfo, Paper
from expunge.settings import Positive
if TYPE_CHECKING:
    from pathlib import Path
    from somewhere.records import Facts
    from torch import nn

@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered(Method):
    by: Positive = 50.0
    notes: Path | None = None
    facts: ClassVar[Facts | None] = None
    info: ClassVar[MethodInfo] = MethodInfo(
        name="lowered", title="Lowered", summary="lower the bias",
        paper=Paper(title="t", authors="a", venue="v"),
        needs=frozenset({"forget", "head"}), aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}), claims=("outputs",), cost="none",
    )

    def apply(self, model: nn.Module, task, run) -> nn.Module:
        import torch
        with torch.no_grad():
            run.needed_head.of(model).bias[sorted(task.classes)] -= self.by
        return model
"""


def test_a_method_of_others_may_import_types_for_type_checkers_alone(monkeypatch):
    module = types.ModuleType("method_of_others")
    monkeypatch.setitem(sys.modules, "method_of_others", module)
    exec(_OF_OTHERS, vars(module))
    result = unlearn(MADE.trained(), module.Lowered(), MADE.absent(3), seed=0)
    assert result.record.settings == {"by": 50.0, "notes": None}
    with pytest.raises(InputError, match="Expected `by` to be a number above 0, got 0"):
        unlearn(MADE.trained(), module.Lowered(by=0), MADE.absent(3), seed=0)


@pytest.mark.parametrize("number", [np.float32(3), np.float64(3), np.int64(3), 3], ids=repr)
def test_any_number_serves_and_the_record_has_a_plain_one(number):
    result = unlearn(MADE.trained(), MaskClass(margin=number), MADE.absent(3), seed=0)
    plain = unlearn(MADE.trained(), MaskClass(margin=3.0), MADE.absent(3), seed=0)
    assert result.record.digest_after == plain.record.digest_after
    assert type(result.record.settings["margin"]) in (int, float)


def test_a_transform_that_is_no_function_is_refused_before_work():
    task = MADE.absent(3, training=Training(MADE.factory, Recipe(epochs=1, transform=3)))
    for door in (unlearn, rehearse):
        with pytest.raises(InputError, match=r"`transform` to be a function or None, got 3\."):
            door(MADE.trained(), Retrain(), task, seed=0)
