"""Trying again leaves a trace: runs of one request on one model in one folder count each other."""

import json
import shutil

import expunge
from expunge.runs.attempts import attempts_in_words
from expunge.testing import toy

MADE = toy("mlp")


def _saved(folder, name, method, task, *, seed=0, model=None):
    result = expunge.unlearn(model or MADE.trained(), method, task, seed=seed)
    run = expunge.save_run(result, folder / name)
    return json.loads((run / "record.json").read_text())["attempts"]


def test_seeds_and_settings_of_one_request_are_counted_by_how_they_ended(tmp_path):
    weak = expunge.MuMis(most_steps=1)
    assert _saved(tmp_path, "a", weak, MADE.absent(3)) == {}
    assert _saved(tmp_path, "b", weak, MADE.absent(3), seed=1) == {"mu-mis ineffective": 1}
    third = _saved(tmp_path, "c", expunge.MaskClass(), MADE.absent(3))
    assert third == {"mu-mis ineffective": 2}
    fourth = _saved(tmp_path, "d", expunge.MaskClass(margin=5.0), MADE.absent(3))
    assert fourth == {"mask-class done": 1, "mu-mis ineffective": 2}
    loaded = expunge.load_run(tmp_path / "d", factory=MADE.factory)
    assert loaded.record.attempts == fourth


def test_other_requests_and_other_models_are_no_attempts(tmp_path):
    _saved(tmp_path, "a", expunge.MaskClass(), MADE.absent(3))
    assert _saved(tmp_path, "b", expunge.MaskClass(), MADE.absent(1)) == {}
    other = MADE.trained()
    other.head.bias.data += 0.01
    assert _saved(tmp_path, "c", expunge.MaskClass(), MADE.absent(3), model=other) == {}
    assert _saved(tmp_path / "elsewhere", "d", expunge.MaskClass(), MADE.absent(3)) == {}


def test_records_are_the_same_request_where_they_meet(tmp_path):
    gated = expunge.Prune(form="gated")
    _saved(tmp_path, "a", gated, MADE.unseen(0, 1, 10))
    assert _saved(tmp_path, "b", gated, MADE.unseen(0, 1, 11)) == {"prune undetermined": 1}
    assert _saved(tmp_path, "c", gated, MADE.unseen(2, 3, 4)) == {}


def test_what_cannot_be_read_is_left_out(tmp_path):
    _saved(tmp_path, "a", expunge.MaskClass(), MADE.absent(3))
    _saved(tmp_path, "b", expunge.MaskClass(), MADE.absent(3))
    shutil.rmtree(tmp_path / "a" / "private")
    (tmp_path / "b" / "private" / "history.json").write_text("{}")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "record.json").write_text("not JSON")
    assert _saved(tmp_path, "c", expunge.MaskClass(), MADE.absent(3)) == {}


def test_the_line_counts_them():
    assert attempts_in_words({}) == ""
    assert attempts_in_words({"mu-mis done": 1}) == (
        "1 earlier attempt at this request here: mu-mis done 1"
    )
    line = attempts_in_words({"mu-mis done": 1, "mu-mis ineffective": 3})
    assert line.startswith("4 earlier attempts")
