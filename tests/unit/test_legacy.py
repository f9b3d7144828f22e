"""Settings of earlier versions mean today what they meant then."""

import pytest

from expunge.errors import JobError
from expunge.methods import METHODS, PrototypeSurgery, Prune, PrunePublished
from expunge.methods.legacy import current, written


@pytest.mark.parametrize(
    ("table", "name", "rest"),
    [
        ({}, "prune", {}),
        ({"form": "gated", "margin": 0.5}, "prune", {"form": "gated", "margin": 0.5}),
        ({"mode": "patch", "ridge": 1e-2}, "prune", {"ridge": 1e-2}),
        ({"mode": "patch", "share": "no number", "rounds": -1}, "prune", {}),
        ({"clusters": 3, "sharpness": 1.0, "jitter": 0.0}, "prune", {"jitter": 0.0}),
        (
            {"mode": "as_published", "share": 0.5, "clusters": 3, "margin": 1.0},
            "prune-published",
            {"share": 0.5, "clusters": 3, "margin": 1.0},
        ),
        (
            {"mode": "as_published", "spec": "unseen", "form": 7, "nearest": 1, "rounds": 4},
            "prune-published",
            {"rounds": 4},
        ),
        ({"mode": "as_published", "shar": 0.5}, "prune-published", {"shar": 0.5}),
    ],
)
def test_prune_with_a_mode_is_one_of_two_methods(table, name, rest):
    before = dict(table)
    assert current("prune", table) == (name, rest)
    assert table == before
    assert current(name, rest) == (name, rest)


def test_a_mode_that_there_never_was_is_refused_with_what_to_write():
    words = '`method.mode`.* "patch" or "as_published", got \'asp\'.*name = "prune-published"'
    with pytest.raises(JobError, match=words):
        current("prune", {"mode": "asp", "share": 0.5})


@pytest.mark.parametrize("method", [Prune, PrunePublished])
def test_all_settings_of_old_runs_have_a_place(method):
    """What a run of the time recorded, with every default."""
    old = {
        "mode": "patch" if method is Prune else "as_published",
        "spec": "auto",
        "form": "auto",
        "tolerance": 2.0**-10,
        "margin": 0.125,
        "jitter": 0.5,
        "ridge": 1e-3,
        "nearest": 100,
        "merge_seconds": 5.0,
        "share": 1.0,
        "clusters": 2,
        "sharpness": 1000.0,
        "rounds": 10,
    }
    name, settings = current("prune", old)
    assert name == method.info.name
    assert method(**settings) == method()


def test_other_methods_keep_their_settings():
    for method in METHODS:
        if method is not Prune:
            table = {"mode": "as_published", "share": 0.5}
            assert current(method.info.name, table) == (method.info.name, table)


def test_an_absolute_ridge_is_a_penalty_now():
    name, settings = current("prototype-surgery", {"refit_ridge": 0.5, "ridge": 0.1})
    assert (name, settings) == ("prototype-surgery", {"refit_penalty": 0.5, "ridge": 0.1})
    assert PrototypeSurgery(**settings).refit_penalty == 0.5


def test_a_setting_under_both_its_names_is_refused():
    with pytest.raises(JobError, match=r"`method\.refit_penalty` once.*`method\.refit_ridge`"):
        current("prototype-surgery", {"refit_ridge": 0.5, "refit_penalty": 0.25})


def test_what_the_user_wrote_is_known():
    table = {"refit_ridge": 0.5, "ridge": 0.1}
    assert written("prototype-surgery", table) == {"refit_penalty": "refit_ridge"}
    assert written("prototype-surgery", {"refit_penalty": 0.5}) == {}
    assert written("prune", table) == {}
