"""Records are values, and can be written as JSON whatever they hold."""

import dataclasses
import json

import pytest

import expunge
from expunge import errors
from expunge.methods import METHODS
from expunge.reasons import Reason
from expunge.records import (
    Limits,
    Measurement,
    NotMeasured,
    Outcome,
    OutcomeReport,
    read_record,
    to_json,
)
from expunge.report.table import claims_in_words
from expunge.testing import toy


def test_json_of_every_kind_of_value():
    report = OutcomeReport(
        outcome=Outcome.DONE,
        why=Reason.CLASS_GONE,
        reason="größer",
        figures={"a": 1.5, "b": float("nan")},
    )
    assert json.loads(to_json(report)) == {
        "outcome": "done",
        "why": "class-gone",
        "reason": "größer",
        "figures": {"a": 1.5, "b": "nan"},
    }
    assert json.loads(to_json({"set": frozenset({"b", "a"}), "tuple": (1, None)})) == {
        "set": ["a", "b"],
        "tuple": [1, None],
    }
    assert to_json(report).endswith("\n")


@pytest.mark.parametrize("cls", METHODS, ids=lambda c: c.info.name)
def test_what_a_method_is_can_be_written(cls):
    written = json.loads(to_json(cls.info))
    assert written["name"] == cls.info.name
    assert written["needs"] == sorted(cls.info.needs)


def test_records_are_frozen():
    limits = Limits()
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.mean_drop = 50.0
    assert limits == Limits(forget_accuracy=5.0, mean_drop=2.0, worst_drop=10.0)


def test_claims_are_a_ceiling_with_what_was_found_beside_it():
    made = toy("mlp")
    record = expunge.unlearn(made.trained(), expunge.MuMis.small(), made.absent(3), seed=0).record
    assert claims_in_words(record) == "at most outputs, features; not measured"
    judged = dataclasses.replace(record, verdicts={**record.verdicts, "outputs": "supported"})
    assert claims_in_words(judged) == (
        "at most outputs, features; outputs supported, features not measured, file not measured"
    )
    back = read_record(to_json(judged))
    assert (back.ceiling, back.verdicts) == (judged.ceiling, judged.verdicts)


def test_measurements_keep_their_interval():
    found = Measurement(
        audit="accuracy",
        name="others",
        subject="after",
        rows="judge",
        value=91.0,
        n=100,
        unit="%",
        direction="higher",
        level="C4",
        interval=(85.0, 95.0),
    )
    assert json.loads(to_json(found))["interval"] == [85.0, 95.0]
    absent = NotMeasured(audit="a", name="n", subject="s", rows="r", reason="no holdout")
    assert json.loads(to_json(absent))["reason"] == "no holdout"


def test_every_error_is_in_the_tree():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.ExpungeError)
        assert name in errors.__doc__
    inputs = {"TaskError", "DataError", "ModelError", "StatisticsError", "JobError", "OutputError"}
    for name in inputs:
        assert issubclass(getattr(errors, name), errors.InputError)
    for name in ("UnsupportedError", "MethodError", "ContractError"):
        assert not issubclass(getattr(errors, name), errors.InputError)
