"""Limits are declared with their ranges, and refused before any work."""

import math

import pytest
import torch

import expunge
from expunge.cli._job import checked_fields
from expunge.errors import InputError, JobError
from expunge.records import Limits
from expunge.settings import check_settings
from expunge.testing import toy
from expunge.unlearning.door import rehearse

BAD = [
    (
        {"forget_accuracy": -0.1},
        "`limits.forget_accuracy` to be a number from 0 and at most 20, got -0.1.",
    ),
    ({"mean_drop": -1}, "`limits.mean_drop` to be a number from 0 and at most 10, got -1."),
    (
        {"worst_drop": math.nan},
        "`limits.worst_drop` to be a number from 0 and at most 30, got nan.",
    ),
    ({"confidence": 0}, "`limits.confidence` to be a number from 0.8 and at most 0.999, got 0."),
    (
        {"forget_accuracy": 100},
        "`limits.forget_accuracy` to be a number from 0 and at most 20, got 100.",
    ),
    ({"mean_drop": math.inf}, "`limits.mean_drop` to be a number from 0 and at most 10, got inf."),
    ({"class_bound": 50}, "`limits.class_bound` to be a number above 0 and at most 40, got 50."),
    ({"mean_bound": 21}, "`limits.mean_bound` to be a number above 0 and at most 20, got 21."),
    (
        {"confidence": 1.0},
        "`limits.confidence` to be a number from 0.8 and at most 0.999, got 1.0.",
    ),
    ({"least_rows": 1}, "`limits.least_rows` to be an integer from 2 and at most 10000, got 1."),
    ({"most_moved": -1}, "`limits.most_moved` to be a number from 0 and at most 100, got -1."),
    (
        {"most_flipped": 101},
        "`limits.most_flipped` to be a number from 0 and at most 100, got 101.",
    ),
    (
        {"least_rows": 2.5},
        "`limits.least_rows` to be an integer from 2 and at most 10000, got 2.5.",
    ),
]


class Untouchable(torch.nn.Module):
    """A model that must not be looked at."""

    def parameters(self, recurse=True):
        yield torch.zeros(1)

    def forward(self, inputs):
        raise AssertionError("no work may start")


@pytest.mark.parametrize("door", [expunge.unlearn, rehearse], ids=lambda d: d.__name__)
@pytest.mark.parametrize(("fields", "words"), BAD, ids=repr)
def test_the_door_refuses_them_before_work(door, fields, words):
    made = toy("mlp")
    task = expunge.forget_classes(made.train, {1})
    with pytest.raises(InputError) as caught:
        door(Untouchable(), expunge.MaskClass(), task, seed=0, limits=Limits(**fields))
    assert str(caught.value) == f"Expected {words}"


def test_the_door_refuses_what_is_no_limits():
    task = expunge.forget_classes(toy("mlp").train, {1})
    with pytest.raises(InputError, match="Expected `limits` to be a Limits, got dict"):
        expunge.unlearn(Untouchable(), expunge.MaskClass(), task, seed=0, limits={})


@pytest.mark.parametrize(("fields", "words"), BAD, ids=repr)
def test_a_job_refuses_them_in_the_same_words(fields, words):
    with pytest.raises(JobError) as caught:
        checked_fields(Limits, fields, "limits")
    assert str(caught.value) == f"Expected {words}"


def test_the_ends_that_belong_are_taken():
    check_settings(Limits())
    check_settings(
        Limits(forget_accuracy=0, mean_drop=0, worst_drop=0, least_rows=2, confidence=0.8)
    )


def test_a_job_may_leave_the_point_out():
    read = checked_fields(Limits, {"mean_drop": 3, "least_rows": 3}, "limits")
    assert read == {"mean_drop": 3, "least_rows": 3}
    assert {name: type(value) for name, value in read.items()} == {
        "mean_drop": float,
        "least_rows": int,
    }
