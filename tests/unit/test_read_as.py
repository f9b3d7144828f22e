"""How data were read is said in the run: notes, class names, labels that count from 1."""

import numpy as np
import pytest
import torch

import expunge
from expunge.data import Fields, as_rows
from expunge.errors import DataError, InputError, TaskError
from expunge.testing import toy

MADE = toy("mlp")
X, Y = MADE.train.inputs["x"], MADE.train.targets
HX, HY = MADE.holdout.inputs["x"], MADE.holdout.targets
NAMES = np.array(["ant", "bee", "cat", "dog", "eel"])


def _run(task, model=None, method=None, **more):
    return expunge.unlearn(
        model or MADE.trained(), method or expunge.MaskClass(), task, seed=0, **more
    )


def test_notes_say_how_labels_were_read():
    task = expunge.forget_classes((X, Y.double()), {3}, holdout=(HX, HY[:, None]))
    notes = _run(task).record.notes
    assert any("labels of `train` are fractions without a remainder" in note for note in notes)
    assert any("labels of `holdout` are one column" in note for note in notes)


def test_names_are_kept_with_the_run_and_in_private_alone(tmp_path):
    task = expunge.forget_classes((X, NAMES[Y]), {"dog"}, holdout=(HX, NAMES[HY]))
    result = _run(task)
    assert result.class_names == tuple(NAMES)
    assert task.classes == {3}
    assert any("names of 5 classes, numbered in sorted order" in n for n in result.record.notes)
    run = expunge.save_run(result, tmp_path / "run")
    assert expunge.load_run(run, factory=MADE.factory).class_names == tuple(NAMES)
    public = [p for p in run.rglob("*") if p.is_file() and "private" not in p.parts]
    assert not any(b"dog" in p.read_bytes() for p in public if p.suffix != ".safetensors")


def test_names_in_another_order_are_refused_later():
    first = _run(expunge.forget_classes((X, NAMES[Y]), {"dog"}, holdout=(HX, NAMES[HY])))
    turned = as_rows((X, NAMES[Y]), fields=Fields(classes=list(NAMES[::-1])))
    task = expunge.forget_classes(turned, {"ant"}, holdout=(HX, NAMES[HY]))
    with pytest.raises(DataError, match="the class names of the earlier requests, 5 from 'ant' on"):
        _run(task, first)
    again = expunge.forget_classes((X, NAMES[Y]), {"ant"}, holdout=(HX, NAMES[HY]))
    assert _run(again, first).class_names == tuple(NAMES)


def test_sorted_names_must_be_all_of_the_models():
    some = Y != 0
    data = (X[some], NAMES[Y][some])
    with pytest.raises(DataError, match=r"names of all the model's 5 classes .* got 4.*`classes`"):
        _run(expunge.forget_classes(data, {"dog"}))
    listed = as_rows(data, fields=Fields(classes=list(NAMES)))
    assert _run(expunge.forget_classes(listed, {"dog"})).record.forget_count == 32
    more = as_rows(data, fields=Fields(classes=[*NAMES, "fox"]))
    with pytest.raises(DataError, match="as many `classes` of the data as the model has, 5, got 6"):
        _run(expunge.forget_classes(more, {"dog"}))


def test_labels_from_one_are_refused_with_the_cure():
    task = expunge.forget_classes((X, Y + 1), {3}, holdout=(HX, HY + 1))
    with pytest.raises(DataError, match="They run from 1 to 5: subtract 1"):
        _run(task)


def test_records_forgotten_already_are_skipped_and_counted():
    tune = expunge.FineTune(epochs=1)
    first = _run(expunge.forget_indices((X, Y), [0, 1, 2], holdout=(HX, HY)), method=tune)
    task = expunge.forget_indices((X, Y), [1, 2, 7, 9], holdout=(HX, HY))
    with pytest.raises(TaskError, match=r"got '1' again.*`already=.skip.`"):
        _run(task, first, tune)
    second = _run(task, first, tune, already="skip")
    assert second.forgotten[-1].ids == ("7", "9")
    assert second.record.forget_count == 2
    note = "2 records of the request were forgotten before and were passed over"
    assert note in second.record.notes
    report = expunge.audit(second, task)
    assert report.counts["forget-train"] == 2
    assert report.judged.outcome is second.outcome.outcome
    with pytest.raises(TaskError, match="got '0' again"):
        _run(expunge.forget_indices((X, Y), [0, 2]), first, tune, already="skip")
    with pytest.raises(InputError, match='`already` to be "error" or "skip", got True'):
        _run(task, first, tune, already=True)


def test_named_inputs_in_a_mapping_serve_every_door():
    made = toy("mapping")
    train = {"x": dict(made.train.inputs), "y": made.train.targets}
    holdout = (dict(made.holdout.inputs), made.holdout.targets.numpy())
    task = expunge.forget_classes(train, {3}, holdout=holdout)
    result = expunge.unlearn(made.trained(), expunge.MaskClass(), task, seed=0)
    report = expunge.audit(result, task)
    assert report.value("accuracy", "after", "forget-train") == 0.0


def test_a_bad_retained_row_is_named_before_any_edit():
    class Late(torch.utils.data.Dataset):
        targets = Y
        broken = False

        def __len__(self):
            return len(Y)

        def __getitem__(self, i):
            return (X[i] / 0 if self.broken and i == 77 else X[i]), int(Y[i])

    data = Late()
    task = expunge.forget_classes(data, {3}, holdout=(HX, HY), ids=[f"p{i}" for i in range(len(Y))])
    data.broken = True
    with pytest.raises(DataError, match="got NaN or infinity in row p77"):
        _run(task, method=expunge.FineTune(epochs=1))
