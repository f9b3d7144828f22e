"""The private history: what is forgotten stays known over a reload, and ids must not move."""

import json

import pytest

import expunge
from expunge.errors import DataError, InputError
from expunge.results.forgotten import found_again
from expunge.testing import toy

MADE = toy("mlp")
METHOD = expunge.FineTune(epochs=1)


def _shrunk(start, wanted):
    rows = MADE.train.inputs["x"][start:], MADE.train.targets[start:]
    return expunge.forget_indices(rows, wanted)


@pytest.fixture
def saved(tmp_path):
    task = expunge.forget_indices(MADE.train, [0, 1, 2])
    result = expunge.unlearn(MADE.trained(), METHOD, task, seed=0)
    return expunge.save_run(result, tmp_path / "run")


def _loaded(path):
    return expunge.load_run(path, factory=MADE.factory)


def test_labels_of_forgotten_rows_come_back(saved):
    (request,) = _loaded(saved).forgotten
    assert request.labels == tuple(MADE.train.targets[:3].tolist())
    assert request.rows is None


def test_labels_are_kept_over_a_second_run_without_the_rows(saved, tmp_path):
    alone = expunge.forget_classes(
        None, {3}, forget=(MADE.train.inputs["x"][3:4], MADE.train.targets[3:4])
    )
    second = expunge.unlearn(_loaded(saved), expunge.MaskClass(), alone, seed=0)
    again = _loaded(expunge.save_run(second, tmp_path / "second"))
    assert [request.labels for request in again.forgotten] == [(0, 1, 2), (3,)]


def test_row_numbers_of_a_shrunken_set_are_refused_after_a_reload(saved):
    with pytest.raises(DataError, match=r"row '0' of `train` .* of another class.*give rows `ids`"):
        expunge.unlearn(_loaded(saved), METHOD, _shrunk(3, [5]), seed=0)


def test_the_same_rows_are_found_again_after_a_reload(saved):
    result = expunge.unlearn(_loaded(saved), METHOD, _shrunk(0, [5]), seed=0)
    assert result.record.retain_count == 156
    assert result.forgotten[0].rows.ids == ("0", "1", "2")


def test_found_rows_are_compared_with_what_was_found_before(saved):
    found = found_again(_loaded(saved).forgotten[0], _shrunk(0, [2]).retain)
    assert found.rows.ids == ("0", "1")
    assert found_again(found, _shrunk(0, [0, 1]).retain) is found, "only row 2 is there, unread"
    with pytest.raises(DataError, match="with other content"):
        found_again(found, _shrunk(5, [2]).retain)


def test_a_history_without_labels_still_knows_its_classes(tmp_path):
    first = expunge.unlearn(MADE.trained(), expunge.MaskClass(), MADE.absent(3), seed=0)
    path = expunge.save_run(first, tmp_path / "run")
    file = path / "private" / "history.json"
    facts = json.loads(file.read_text())
    facts["requests"][0]["labels"] = None
    file.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="of another class"):
        expunge.unlearn(_loaded(path), METHOD, _shrunk(1, [0]), seed=0)


@pytest.mark.parametrize("labels", [[0, 1], ["a", 1, 2], 3])
def test_labels_that_do_not_fit_the_ids_are_damage(saved, labels):
    file = saved / "private" / "history.json"
    facts = json.loads(file.read_text())
    facts["requests"][0]["labels"] = labels
    file.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="It is damaged: take it from a copy"):
        _loaded(saved)
