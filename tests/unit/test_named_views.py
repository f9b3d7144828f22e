"""Views are named once, looked at before any work, and reach methods and later requests."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch
from scripted import info

import expunge
from expunge.data.images import image_views
from expunge.errors import DataError
from expunge.methods.base import Method
from expunge.testing.toys import toy
from expunge.unlearning.door import rehearse

MADE, NAMED, FLAT = toy("cnn"), toy("mapping"), toy("mlp")
seen = []


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Looking(Method):
    """Tells which views it was handed, and edits the head a little."""

    info: ClassVar = info(needs=frozenset({"forget"}), scopes=frozenset({"classes"}))

    def apply(self, model, task, run):
        seen.append(task.views)
        with torch.no_grad():
            list(model.parameters())[-1][1] -= 50.0
        return model


def _louder(inputs):
    if isinstance(inputs, dict):
        return [{name: 1.1 * value for name, value in inputs.items()}]
    return [1.1 * inputs]


def _shouting(inputs):
    return [2.0 * inputs, 3.0 * inputs]


@pytest.mark.parametrize(
    ("made", "views", "wanted"),
    [
        (MADE, "images", image_views),
        (MADE, _louder, _louder),
        (NAMED, _louder, _louder),
        (FLAT, "none", None),
        (FLAT, None, None),
    ],
)
def test_a_method_sees_the_views_that_the_door_was_given(made, views, wanted):
    seen.clear()
    task = made.absent(1)
    result = expunge.unlearn(made.trained(), Looking(), task, seed=0, views=views)
    assert seen == [wanted]
    assert task.views is None
    assert rehearse(made.trained(), Looking(), task, seed=0, views=views).request.task.views is (
        wanted
    )
    assert expunge.audit(result, task, views=views).outcome == result.outcome


def test_views_of_the_task_serve_where_the_door_names_none():
    plain = MADE.absent(1)
    task = plain.having(dataclasses.replace(plain.given, views=_louder))
    seen.clear()
    for views in (None, _shouting, "none"):
        expunge.unlearn(MADE.trained(), Looking(), task, seed=0, views=views)
    assert seen == [_louder, _shouting, None]


def test_views_stay_with_the_request_through_every_step():
    """Statistics of an earlier run, and those given, stand beside the views."""
    method = expunge.LeastSquaresRemoval()
    first = expunge.unlearn(MADE.trained(), method, MADE.absent(1), seed=0)
    found = rehearse(first, method, MADE.absent(2), seed=0, views="images").request.task
    assert found.views is image_views
    assert found.statistics is not None


def test_views_change_no_outcome_and_no_byte():
    """The edit is the same with views and without."""
    first, second = (
        expunge.unlearn(MADE.trained(), expunge.PrototypeSurgery(), MADE.absent(1), seed=0, views=v)
        for v in (None, "images")
    )
    assert first.record.digest_after == second.record.digest_after
    assert first.outcome.outcome is second.outcome.outcome


def _noisy(inputs):
    return [inputs + torch.rand_like(inputs)]


@pytest.mark.parametrize(
    ("made", "views", "words"),
    [
        (MADE, "pictures", 'Expected `views` to be "images", "none" or a function from a batch'),
        (FLAT, "images", 'Expected images (n, h, w) or (n, c, h, w) for `views` = "images", got'),
        (NAMED, "images", 'Expected one image tensor among the named inputs for `views` = "ima'),
        (MADE, _noisy, "of 8 rows of `forget` twice gave different values. Draw nothing at rand"),
        (MADE, lambda x: [x[1:]], "One view of every row, in the batch's order. (Tried on rows of"),
        (MADE, lambda x: x, "Expected `views` to return a list of batches, one a view, got Tensor"),
    ],
)
def test_views_are_refused_before_any_work(made, views, words):
    seen.clear()
    task = made.absent(1)
    result = expunge.unlearn(made.trained(), Looking(), task, seed=0)
    asked = {
        "unlearn": lambda: expunge.unlearn(made.trained(), Looking(), task, seed=0, views=views),
        "rehearse": lambda: rehearse(made.trained(), Looking(), task, seed=0, views=views),
        "audit": lambda: expunge.audit(result, task, views=views),
    }
    for door in asked.values():
        with pytest.raises(DataError, match=r"Expected .*view") as error:
            door()
        assert words in str(error.value)
    assert seen == [None]


def test_views_are_tried_on_the_holdout_too():
    wide = {"x": torch.cat([MADE.holdout.inputs["x"]] * 2, dim=2)}
    task = MADE.absent(1, holdout=dataclasses.replace(MADE.holdout, inputs=wide))

    def square(inputs):
        if inputs.shape[2] != inputs.shape[3]:
            raise ValueError("not square")
        return [inputs.transpose(2, 3)]

    with pytest.raises(DataError, match=r"ValueError: not square.*\(Tried on rows of `holdout`"):
        expunge.unlearn(MADE.trained(), Looking(), task, seed=0, views=square)


def test_the_random_state_is_the_callers():
    before = torch.random.get_rng_state()
    with pytest.raises(DataError):
        expunge.unlearn(MADE.trained(), Looking(), MADE.absent(1), seed=0, views=_noisy)
    assert torch.equal(torch.random.get_rng_state(), before)
