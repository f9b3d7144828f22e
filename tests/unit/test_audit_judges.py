"""An audit judges again by the same rule, and says where it contradicts the run."""

import dataclasses

import pytest
import torch
from learnt_by_heart import LOOSE, unseen
from torch import nn

import expunge
from expunge import FineTune, MaskClass, PrototypeSurgery, Prune, Recipe, audit, forget_indices
from expunge.errors import ModelError, TaskError
from expunge.reasons import Reason
from expunge.records import Outcome
from expunge.testing import toy

MADE = toy("mlp")
RECIPE = Recipe(epochs=120, batch_size=40, lr=0.2, weight_decay=0.0)
LABELS = torch.randint(0, 5, (160,), generator=torch.Generator().manual_seed(3))
TRAIN = (MADE.train.inputs["x"], LABELS)
HOLDOUT = unseen(MADE.holdout.inputs["x"], 1600)
WANTED = range(60)


def _net():
    return nn.Sequential(nn.Linear(12, 256), nn.ReLU(), nn.Linear(256, 5))


def _knowing(start, seed=0):
    """A net that knows the rows from `start` by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _net()
    rows = TRAIN[0][start:], TRAIN[1][start:]
    generator = torch.Generator().manual_seed(seed)
    return RECIPE(model, rows, generator=generator, device=torch.device("cpu")).eval()


@pytest.fixture(scope="module")
def original():
    return _knowing(0)


@pytest.fixture(scope="module")
def references():
    return [_knowing(60, seed) for seed in (11, 12, 13, 14)]


@pytest.fixture(scope="module")
def task():
    return forget_indices(TRAIN, WANTED, holdout=HOLDOUT)


def _same(first, second):
    assert (first.outcome, first.why, first.reason) == (second.outcome, second.why, second.reason)
    assert dict(first.figures) == pytest.approx(dict(second.figures))


@pytest.mark.parametrize("method", [MaskClass(), PrototypeSurgery(), FineTune(epochs=1)])
def test_a_class_is_judged_as_the_run_was(method):
    task = MADE.absent(1)
    result = expunge.unlearn(MADE.trained(), method, task, seed=0)
    report = audit(result, task)
    _same(report.judged, result.outcome)
    assert not report.contradicts


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("method", [FineTune(epochs=2), Prune(form="gated")])
def test_records_are_judged_as_the_run_was(method, count, original, references, task):
    used = references[:count]
    result = expunge.unlearn(original, method, task, seed=0, references=used, limits=LOOSE)
    report = audit(result, task, references=used)
    _same(report.judged, result.outcome)
    assert report.judged.figures["references"] == count


def test_a_loaded_run_is_judged_from_what_is_read_anew(original, task, tmp_path):
    result = expunge.unlearn(original, Prune(form="gated"), task, seed=0, limits=LOOSE)
    run = expunge.load_run(expunge.save_run(result, tmp_path / "run"), factory=_net)
    assert audit(run, task).judged is None  # the original is not at hand
    report = audit(run, task, original=original)
    _same(report.judged, result.outcome)


def test_a_forged_outcome_is_contradicted(original, task):
    result = expunge.unlearn(original, FineTune(epochs=2), task, seed=0, limits=LOOSE)
    assert result.outcome.outcome is Outcome.INEFFECTIVE
    forged = dataclasses.replace(result.outcome, outcome=Outcome.DONE)
    record = dataclasses.replace(result.record, outcome=forged)
    report = audit(dataclasses.replace(result, record=record), task)
    assert report.judged.outcome is Outcome.INEFFECTIVE
    assert report.contradicts


@pytest.mark.parametrize(
    ("run", "own", "contradicted"),
    [
        (Outcome.DONE, Outcome.WRECKED, True),
        (Outcome.UNDETERMINED, Outcome.INEFFECTIVE, True),
        (Outcome.INCOMPLETE, Outcome.DONE, False),
        (Outcome.UNDETERMINED, Outcome.DONE, False),
        (Outcome.DONE, Outcome.UNDETERMINED, False),
        (Outcome.INEFFECTIVE, Outcome.DONE, True),
        (Outcome.NO_OP, Outcome.INEFFECTIVE, False),
        (Outcome.NO_OP, Outcome.UNDETERMINED, False),
    ],
)
def test_what_is_a_contradiction(run, own, contradicted):
    task = MADE.absent(1)
    result = expunge.unlearn(MADE.trained(), MaskClass(), task, seed=0)
    report = audit(result, task)
    changed = dataclasses.replace(
        report,
        outcome=dataclasses.replace(report.outcome, outcome=run),
        judged=dataclasses.replace(report.judged, outcome=own),
    )
    assert changed.contradicts is contradicted
    back = dataclasses.replace(changed.outcome, why=Reason.CAME_BACK)
    assert not dataclasses.replace(changed, outcome=back).contradicts  # earlier requests: the run's


def test_a_model_without_numbers_is_judged_wrecked_by_both():
    task = MADE.absent(1)
    result = expunge.unlearn(MADE.trained(), MaskClass(), task, seed=0)
    with torch.no_grad():
        result.model.head.weight[0, 0] = float("nan")
    report = audit(result, task)
    assert (report.judged.outcome, report.judged.why) == (Outcome.WRECKED, Reason.NOT_FINITE)


def test_another_holdout_is_refused(original, task, tmp_path):
    result = expunge.unlearn(original, FineTune(epochs=1), task, seed=0, limits=LOOSE)
    run = expunge.load_run(expunge.save_run(result, tmp_path / "run"), factory=_net)
    assert audit(run, task, original=original).judged is not None
    for rows in (slice(0, 1500), slice(100, None)):
        other = forget_indices(TRAIN, WANTED, holdout=tuple(part[rows] for part in HOLDOUT))
        for subject in (run, result):
            with pytest.raises(TaskError, match="the holdout that the run was judged on"):
                audit(subject, other, original=original)
    turned = forget_indices(TRAIN, WANTED, holdout=tuple(part.flip(0) for part in HOLDOUT))
    assert audit(run, turned, original=original).judged is not None  # the order is none of its own
    without = forget_indices(TRAIN, WANTED)
    assert audit(run, without, original=original).judged.why is Reason.NO_HOLDOUT


class _Category(nn.Module):
    """Reads a whole number out of the first column, and knows no other."""

    def __init__(self):
        super().__init__()
        self.of = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        if bool((x[:, 0] != x[:, 0].round()).any()):
            raise IndexError("no such category")
        return self.head(self.of(x[:, 0].long()))


def test_noise_that_a_model_does_not_take_is_left_out_and_told():
    x = torch.randint(5, (600, 3), generator=torch.Generator().manual_seed(0)).float()
    x[:, 1] = torch.arange(600) + 0.5  # no row twice
    y = x[:, 0].long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Category()
    task = forget_indices((x[:200], y[:200]), range(20), holdout=(x[200:], y[200:]))
    result = expunge.unlearn(model, FineTune(epochs=1), task, seed=0)
    assert "noise_signal_after" not in result.outcome.figures
    assert any(note.startswith("noisy copies were not judged") for note in result.record.notes)


def test_views_that_a_model_does_not_take_are_refused_before_work():
    task = MADE.unseen(0, 1, 2)

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = MADE.trained()

        def forward(self, x):
            if bool((x > 100).any()):
                raise ValueError("too large")
            return self.net(x)

    with pytest.raises(ModelError, match="to run on the views named, but it raised ValueError"):
        expunge.unlearn(Narrow(), FineTune(epochs=1), task, seed=0, views=lambda b: [b + 1000])
