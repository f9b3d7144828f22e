"""What no run can change is said before it: in the very words of the outcome that would follow."""

import dataclasses

import pytest
import torch
from torch import nn

import expunge
from expunge.reasons import Reason
from expunge.records import Limits, Outcome
from expunge.testing.toys import ToyData, toy
from expunge.unlearning.door import rehearse
from expunge.unlearning.foreseen import foreseen

MADE = toy("mlp")


def _foreseen(task, *, model=None, limits=None):
    given = MADE.trained() if model is None else model
    return foreseen(rehearse(given, expunge.MaskClass(), task, seed=0, limits=limits).request)


def _records(task):
    return foreseen(rehearse(MADE.trained(), expunge.FineTune(), task, seed=0).request)


def _whys(task, **more):
    return [report.why for report in _foreseen(task, **more)]


def _relabelled(data, order):
    return ToyData(data.inputs, torch.tensor(order)[data.targets])


def _cut(per_class):
    """The toy's holdout with so many rows of each class that is named, all of the others."""
    keep = []
    for c in range(5):
        rows = (MADE.holdout.targets == c).nonzero().flatten()
        keep += rows[: per_class.get(c, len(rows))].tolist()
    x = MADE.holdout.inputs["x"]
    return ToyData({"x": x[keep]}, MADE.holdout.targets[keep])


def _outcome(task, *, model=None):
    given = MADE.trained() if model is None else model
    return expunge.unlearn(given, expunge.MaskClass(), task, seed=0).outcome


def test_nothing_stands_in_the_way_of_a_fit_request():
    assert _foreseen(MADE.absent(1)) == ()
    assert _foreseen(MADE.absent(1, 3)) == ()
    assert _outcome(MADE.absent(1)).outcome is Outcome.DONE


def test_a_class_of_another_number_is_not_recognised():
    order = [0, 2, 1, 3, 4]
    made = dataclasses.replace(
        MADE, train=_relabelled(MADE.train, order), holdout=_relabelled(MADE.holdout, order)
    )
    found = _foreseen(made.absent(1, 2, 3))
    assert [report.why for report in found] == [Reason.NOT_KNOWN_BEFORE] * 2
    assert [report.reason[:7] for report in found] == ["class 1", "class 2"]
    assert "Label numbering? Normalisation? Already gone?" in found[0].reason
    outcome = _outcome(made.absent(1, 2, 3))
    assert (outcome.outcome, outcome.why, outcome.reason) == (
        Outcome.UNDETERMINED,
        found[0].why,
        found[0].reason,
    )


def test_a_class_that_is_gone_from_the_given_model_is_not_recognised():
    task = MADE.absent(1)
    gone = expunge.unlearn(MADE.trained(), expunge.MaskClass(), task, seed=0).model
    assert _whys(task, model=gone) == [Reason.NOT_KNOWN_BEFORE]


def test_what_stays_near_chance_is_said_as_the_outcome_says_it():
    order = [0, 2, 3, 4, 1]
    made = dataclasses.replace(
        MADE, train=_relabelled(MADE.train, order), holdout=_relabelled(MADE.holdout, order)
    )
    task = made.absent(0)
    (found,) = _foreseen(task)
    outcome = _outcome(task)
    assert found.why is outcome.why is Reason.NEAR_CHANCE_BEFORE
    assert found.reason == outcome.reason
    assert "(chance: 25.0 %)" in found.reason


def test_what_an_earlier_run_forgot_does_not_count():
    first = expunge.unlearn(MADE.trained(), expunge.MaskClass(), MADE.absent(0, 1), seed=0)
    assert _foreseen(MADE.absent(2), model=first) == ()


@pytest.mark.parametrize("rows", [56, 57, 0])
def test_too_few_judge_rows_of_a_class_are_counted_beforehand(rows):
    task = MADE.absent(1, holdout=_cut({1: rows}))
    found, outcome = _foreseen(task), _outcome(task)
    if rows == 57:
        assert found == ()
        assert outcome.outcome is Outcome.DONE
        return
    (report,) = found
    assert report.why is outcome.why
    assert report.why is (Reason.CLASS_NOT_EXCLUDED if rows else Reason.NO_ROW_OF_CLASS)
    if rows:
        assert report.reason.startswith("with 28 judge rows of class 1 up to 10.1 % of such rows")
        assert "(limit: 10 %); 29 judge rows, half of the holdout's, would settle" in report.reason


def test_every_class_of_the_request_is_looked_at():
    task = MADE.absent(1, 2, 3, holdout=_cut({1: 20, 2: 0}))
    assert _whys(task) == [Reason.CLASS_NOT_EXCLUDED, Reason.NO_ROW_OF_CLASS]


def test_the_limits_are_those_of_the_run():
    holdout = _cut({1: 40})
    assert _whys(MADE.absent(1, holdout=holdout)) == [Reason.CLASS_NOT_EXCLUDED]
    assert _whys(MADE.absent(1, holdout=holdout), limits=Limits(class_bound=20.0)) == []
    assert _whys(MADE.absent(1), limits=Limits(least_rows=129)) == [Reason.FEW_ROWS_STAY]
    assert _whys(MADE.absent(1), limits=Limits(least_rows=128)) == []


def test_without_a_holdout_nothing_can_be_judged():
    assert _whys(MADE.absent(1, holdout=None)) == [Reason.NO_HOLDOUT]
    assert [report.why for report in _records(MADE.unseen(0, 5, holdout=None))] == [
        Reason.NO_HOLDOUT
    ]
    few = {c: 9 for c in range(5) if c != 1}
    assert _whys(MADE.absent(1, holdout=_cut({**few, 0: 0, 2: 0}))) == [Reason.FEW_ROWS_STAY]


class _Counting(nn.Module):
    """The model, counting the rows it is given."""

    def __init__(self):
        super().__init__()
        self.inner, self.rows = MADE.trained(), 0

    def forward(self, x):
        self.rows += len(x)
        return self.inner(x)


def test_records_are_compared_with_judge_rows_of_their_classes():
    first = (MADE.train.targets == 1).nonzero().flatten()[:3].tolist()
    assert _records(MADE.unseen(*first)) == ()
    (found,) = _records(MADE.unseen(*first, holdout=_cut({1: 0})))
    assert found.why is Reason.NO_ROW_OF_RECORDS
    (found,) = _records(MADE.unseen(*first, holdout=_cut(dict.fromkeys(range(5), 5))))
    assert found.why is Reason.FEW_ROWS_STAY


def test_it_leaves_everything_as_it_was_and_reads_some_rows_only():
    model, noise = _Counting(), torch.random.get_rng_state()
    model.train()
    times = 40  # 1,280 training rows a class, 5,120 judge rows that stay
    train, holdout = (
        ToyData({"x": d.inputs["x"].repeat(times, 1)}, d.targets.repeat(times))
        for d in (MADE.train, MADE.holdout)
    )
    extra = torch.randn(len(train), 12, generator=torch.Generator().manual_seed(3))
    train = ToyData({"x": train.inputs["x"] + 1e-3 * extra}, train.targets)
    request = rehearse(
        model, expunge.MaskClass(), MADE.absent(1, 2, train=train, holdout=holdout), seed=0
    ).request
    model.rows = 0
    assert foreseen(request) == ()
    assert model.rows == 2 * 1024 + 2048
    assert all(module.training for module in model.modules() if module is not model.inner.head)
    assert torch.equal(torch.random.get_rng_state(), noise)
