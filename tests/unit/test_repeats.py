"""Content that is in the data twice: repeats leave the holdout, twins of records are told."""

import json
import stat
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from scripted import info as info_of

import expunge
from expunge import FineTune, LeastSquaresRemoval, MaskClass, Prune, audit, unlearn
from expunge.data import digests
from expunge.data.digests import content_digests
from expunge.data.views import as_rows
from expunge.errors import InputError, TaskError
from expunge.methods import Method
from expunge.reasons import Reason
from expunge.records import MethodInfo, Outcome, OutcomeReport
from expunge.testing import toy
from expunge.unlearning.door import rehearse
from expunge.unlearning.served import Served

MADE = toy("mlp")
X, Y = MADE.train.inputs["x"], MADE.train.targets
HX, HY = MADE.holdout.inputs["x"], MADE.holdout.targets
TUNE = FineTune(epochs=1)
HANDED = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Noting(Method):
    """Keeps what it was handed; moves every bias."""

    info: ClassVar[MethodInfo] = info_of(needs=frozenset({"forget", "retain", "holdout"}))

    def apply(self, model, task, run):
        HANDED.append(task)
        with torch.no_grad():
            model.head.bias.add_(1.0)
        return model


def _mixed(count, start=10):
    """The holdout with `count` training rows added to it, from row `start`."""
    own = slice(start, start + count)
    return torch.cat([HX, X[own]]), torch.cat([HY, Y[own]])


def _class(holdout, **given):
    return expunge.forget_classes((X, Y), {3}, holdout=holdout, **given)


def _records(holdout, wanted=(0, 1)):
    return expunge.forget_indices((X, Y), wanted, holdout=holdout)


def _contents(*parts):
    return {digest for rows in parts for digest in content_digests(as_rows(rows))}


# --- repeats --------------------------------------------------------------------------------------


def test_a_few_repeats_leave_the_holdout_and_are_counted():
    result = unlearn(MADE.trained(), Noting(), _records(_mixed(3)), seed=0)
    record, handed = result.record, HANDED[-1].holdout
    assert record.repeats_count == 3
    assert record.tune_count + record.judge_count == len(HX)
    assert record.notes[0] == (
        "3 holdout rows are also among the training rows that stay and were left out"
    )
    assert not _contents((X, Y)) & _contents(handed, result.read.judge)
    assert len(handed) == record.tune_count


def test_above_one_percent_they_are_an_error_that_names_both_cures():
    words = (
        r"4 of 324 of its rows are also among the training rows that stay \(more than 1 %\)\. "
        r"Give rows never trained on; or, .* `repeats=\"expected\"` \(\[data\] in a job\)"
    )
    for door in (unlearn, rehearse):
        with pytest.raises(TaskError, match=words):
            door(MADE.trained(), TUNE, _records(_mixed(4)), seed=0)


def test_expected_repeats_leave_however_many():
    result = unlearn(MADE.trained(), TUNE, _records(_mixed(100)), seed=0, repeats="expected")
    assert result.record.repeats_count == 100
    assert result.record.tune_count + result.record.judge_count == len(HX)
    assert result.record.notes[0].startswith("100 holdout rows are also among the training rows")


def test_a_holdout_of_training_rows_alone_is_refused_either_way():
    task = _class((X[Y != 3], Y[Y != 3]))
    with pytest.raises(TaskError, match="128 of 128 of its rows are also among"):
        unlearn(MADE.trained(), TUNE, task, seed=0)
    with pytest.raises(
        TaskError, match=r"all 128 of its rows were\. Give rows never trained on, or"
    ):
        unlearn(MADE.trained(), TUNE, task, seed=0, repeats="expected")


def test_rows_to_be_forgotten_stay_an_error_where_repeats_are_expected():
    task = _records(_mixed(4, start=0), range(4))
    with pytest.raises(TaskError, match="4 of 324 of its rows are also in the forget set"):
        unlearn(MADE.trained(), TUNE, task, seed=0, repeats="expected")


@pytest.mark.parametrize("door", [unlearn, rehearse])
def test_what_repeats_are_is_one_of_two_words(door):
    with pytest.raises(InputError, match=r'`repeats` to be "error" or "expected", got True'):
        door(MADE.trained(), TUNE, _records((HX, HY)), seed=0, repeats=True)


def test_training_rows_that_a_method_does_not_read_are_not_compared():
    def refuse(position):
        if Y[position] != 3:
            raise AssertionError(f"row {position} was read")

    others = (torch.cat([HX, X[Y != 3]]), torch.cat([HY, Y[Y != 3]]))
    task = MADE.watched(refuse).absent(3, holdout=others)
    record = unlearn(MADE.trained(), MaskClass(), task, seed=0).record
    assert (record.repeats_count, record.twins_count) == (None, None)
    assert rehearse(MADE.trained(), MaskClass(), task, seed=0).repeats_count is None


def test_rows_are_compared_where_statistics_are_made_of_them_now():
    first = unlearn(MADE.trained(), LeastSquaresRemoval(), _class(_mixed(3)), seed=0)
    assert first.record.repeats_count == 3
    then = expunge.forget_classes((X, Y), {1}, holdout=_mixed(3))
    second = unlearn(first, LeastSquaresRemoval(), then, seed=0)
    assert second.record.repeats_count is None, "the statistics are those of the first request"


def test_a_dry_run_counts_them_too():
    found = rehearse(MADE.trained(), TUNE, _records(_mixed(5)), seed=0, repeats="expected")
    assert (found.repeats_count, found.dropped_from_holdout) == (5, 0)
    assert found.tune_count + found.judge_count == len(HX)
    none = rehearse(MADE.trained(), TUNE, _records(None), seed=0)
    assert (none.repeats_count, none.tune_count, none.judge_count) == (None, 0, 0)


def test_a_row_keeps_its_side_when_repeats_leave():
    plain = unlearn(MADE.trained(), TUNE, _records(_mixed(3)), seed=0).read.judge
    loose = unlearn(MADE.trained(), MaskClass(), _class(_mixed(3)), seed=0).read.judge
    assert set(plain.ids) <= set(loose.ids)


def test_an_audit_of_a_loaded_run_uses_the_same_judge_rows(tmp_path):
    task, model = _records(_mixed(100)), MADE.trained()
    result = unlearn(model, TUNE, task, seed=0, repeats="expected")
    path = expunge.save_run(result, tmp_path / "run")
    loaded = expunge.load_run(path, factory=MADE.factory)
    reports = [audit(run, task, original=model) for run in (result, loaded)]
    assert reports[0].counts == reports[1].counts
    assert reports[0].measurements == reports[1].measurements
    assert reports[0].counts["others"] == result.record.judge_count
    again = audit(result, _records(_mixed(100)), original=model)
    assert again.measurements == reports[0].measurements


@pytest.fixture
def hashed(monkeypatch):
    """How many rows were hashed."""
    hashed = [0]
    plain = digests._row_bytes

    def counting(value):
        hashed[0] += len(value)
        return plain(value)

    monkeypatch.setattr(digests, "_row_bytes", counting)
    return hashed


@pytest.mark.parametrize(
    "method", [TUNE, Prune(form="gated"), Prune(form="gated", entangled="forget-twins")]
)
@pytest.mark.parametrize("door", [unlearn, rehearse])
def test_each_row_is_hashed_once_a_call(hashed, method, door):
    door(MADE.trained(), method, _records((HX, HY)), seed=0)
    assert hashed[0] == len(X) + len(HX)


def test_forget_and_holdout_rows_alone_are_hashed_where_the_others_are_not_read(hashed):
    unlearn(MADE.trained(), MaskClass(), _class((HX, HY)), seed=0)
    assert hashed[0] == 32 + len(HX)


# --- twins ----------------------------------------------------------------------------------------


def _twinned(*pairs):
    """The training rows with ids, some of them copies of others, labels too."""
    x, y = X.clone(), Y.clone()
    for copy, original in pairs:
        x[copy], y[copy] = x[original], y[original]
    return {"x": x, "y": y, "id": [f"r{i}" for i in range(len(y))]}


TWINS = ((100, 0), (101, 0), (110, 5))


def _twin_request(*pairs, wanted=range(10)):
    return expunge.forget_indices(_twinned(*pairs), wanted, holdout=(HX, HY))


def test_twins_are_counted_noted_and_named_in_private(tmp_path):
    result = unlearn(MADE.trained(), TUNE, _twin_request(*TWINS), seed=0)
    assert result.record.twins_count == 2
    assert result.twins == {"r0": ("r100", "r101"), "r5": ("r110",)}
    assert any(
        note.startswith("2 forget records stay in the training data under another id")
        for note in result.record.notes
    )
    path = expunge.save_run(result, tmp_path / "run")
    file = path / "private" / "twins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == [
        {"id": "r0", "the same as": ["r100", "r101"]},
        {"id": "r5", "the same as": ["r110"]},
    ]
    assert "r100" not in (path / "record.json").read_text()
    assert rehearse(MADE.trained(), TUNE, _twin_request(*TWINS), seed=0).twins_count == 2


def test_without_twins_there_is_neither_note_nor_file(tmp_path):
    result = unlearn(MADE.trained(), TUNE, _twin_request(), seed=0)
    assert (result.record.twins_count, result.twins) == (0, {})
    path = expunge.save_run(result, tmp_path / "run")
    assert not (path / "private" / "twins.json").exists()


def _judged_as(monkeypatch, outcome, why=Reason.LIKE_UNSEEN):
    report = OutcomeReport(outcome=outcome, why=why, reason="as told", figures={"a": 1.0})
    monkeypatch.setattr("expunge.unlearning.looks.judge_unseen", lambda case: report)


def test_records_with_twins_are_undetermined_at_best(monkeypatch):
    _judged_as(monkeypatch, Outcome.DONE)
    plain = unlearn(MADE.trained(), Noting(), _twin_request(), seed=0).outcome
    assert (plain.outcome, plain.why) == (Outcome.DONE, Reason.LIKE_UNSEEN)
    report = unlearn(MADE.trained(), Noting(), _twin_request(*TWINS), seed=0).outcome
    assert (report.outcome, report.why) == (Outcome.UNDETERMINED, Reason.TWINS)
    assert report.reason == (
        "2 of 10 records stay in the training data under another id, with the same content: "
        "whether they are forgotten cannot be told (measured: as told)"
    )
    assert report.figures["a"] == 1.0


@pytest.mark.parametrize("outcome", [Outcome.INEFFECTIVE, Outcome.WRECKED, Outcome.UNDETERMINED])
def test_what_is_no_success_keeps_its_reason(monkeypatch, outcome):
    _judged_as(monkeypatch, outcome, Reason.SIGNAL_LEFT)
    report = unlearn(MADE.trained(), Noting(), _twin_request(*TWINS), seed=0).outcome
    assert (report.outcome, report.why) == (outcome, Reason.SIGNAL_LEFT)


@pytest.mark.parametrize(("twins", "capped"), [(0, False), (1, False), (2, True)])
def test_one_percent_of_the_records_may_have_twins(twins, capped):
    served = Served(
        request=SimpleNamespace(task=SimpleNamespace(aim="unseen")),
        whole=None,
        places=torch.arange(100),
        refused={},
        twins={f"r{i}": ("other",) for i in range(twins)},
    )
    done = OutcomeReport(outcome=Outcome.DONE, why=Reason.LIKE_UNSEEN, reason="as told")
    assert (served.beside_twins(done).why is Reason.TWINS) is capped


def test_a_class_with_twins_of_another_label_is_still_done():
    train = _twinned()
    train["x"][1] = train["x"][3]
    assert (train["y"][1], train["y"][3]) == (1, 3)
    task = expunge.forget_classes(train, {3}, holdout=(HX, HY))
    result = unlearn(MADE.trained(), expunge.PrototypeSurgery(), task, seed=0)
    assert result.record.twins_count == 1
    assert result.twins == {"r3": ("r1",)}
    assert result.outcome.outcome is Outcome.DONE, result.outcome.reason


def test_records_that_were_refused_are_no_twins_of_those_served():
    task = _twin_request(*TWINS)
    result = unlearn(MADE.trained(), Prune(form="gated"), task, seed=0)
    assert set(result.refused) == {"r0", "r5"}
    assert (result.record.twins_count, result.twins) == (0, {})
    found = rehearse(MADE.trained(), Prune(form="gated"), task, seed=0)
    assert (len(found.refused), found.twins_count) == (2, 0)


def test_twins_that_join_the_request_are_none_any_more():
    method = Prune(form="gated", entangled="forget-twins")
    result = unlearn(MADE.trained(), method, _twin_request(*TWINS), seed=0)
    assert result.record.forget_count == 13
    assert (result.record.twins_count, result.twins) == (0, {})
