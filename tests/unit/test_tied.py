"""An audit belongs to its run: another request, another original, a model changed since."""

import copy
import dataclasses
import shutil

import pytest
import torch
from torch import nn

import expunge
from expunge import FineTune, MaskClass, Prune, audit, forget_indices, unlearn
from expunge.errors import InputError, ModelError, TaskError
from expunge.runs.saving import save_audit
from expunge.testing import toy

MADE = toy("mlp")
TRAIN = {"x": MADE.train.inputs["x"], "y": MADE.train.targets}
HOLDOUT = {"x": MADE.holdout.inputs["x"], "y": MADE.holdout.targets}
SILENT = r"Expected `task` to be the request that the run served, got "


@pytest.fixture(scope="module")
def of_class():
    return unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0)


@pytest.fixture(scope="module")
def of_records():
    return unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(4, 5, 6), seed=0)


@pytest.fixture
def unread(monkeypatch):
    """No network reads anything: what is refused is refused before."""
    monkeypatch.setattr("expunge.auditing.reading.logits_of", None)


def test_the_report_holds_what_ties_it_to_its_run(of_class):
    report = audit(of_class, MADE.absent(1))
    record = of_class.record
    assert (report.commitment, report.limits) == (record.commitment, record.limits)
    assert (report.digest_before, report.model_digest) == (
        record.digest_before,
        record.digest_after,
    )


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("task", "words"),
    [
        (MADE.absent(2), r"one for classes \[2\], not \[1\]"),
        (MADE.absent(1, 2), r"one for classes \[1, 2\], not \[1\]"),
        (MADE.unseen(1, 6), "one for records with aim 'unseen', not classes"),
        (
            MADE.absent(1, ids=[f"p{i}" for i in range(160)]),
            "one with other records: 32 of `task` were not in",
        ),
    ],
    ids=["class", "more classes", "records", "ids"],
)
def test_another_request_than_a_class(of_class, task, words):
    with pytest.raises(TaskError, match=SILENT + words):
        audit(of_class, task)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("task", "words"),
    [
        (MADE.unseen(4, 5), "0 of `task` were not in it and 1 of it are not in `task`, '6' first"),
        (MADE.unseen(4, 5, 6, 9), "1 of `task` were not in it and 0 of it .*, '9' first"),
        (MADE.unseen(4, 5, 7), "1 of `task` were not in it and 1 of it .*, '7' first"),
        (MADE.absent(1), "one for classes with aim 'absent', not records"),
    ],
    ids=["fewer", "more", "others", "class"],
)
def test_another_request_than_these_records(of_records, task, words):
    with pytest.raises(TaskError, match=f"{SILENT}.*{words}"):
        audit(of_records, task)


def test_the_same_request_made_anew_is_the_same(of_records):
    assert audit(of_records, MADE.unseen(6, 5, 4)).counts["forget-train"] == 3


@pytest.mark.usefixtures("unread")
def test_the_same_ids_with_other_labels_or_contents(of_records):
    labels, x = TRAIN["y"].clone(), TRAIN["x"].clone()
    labels[5], x[6] = 3, x[6] + 1
    with pytest.raises(TaskError, match="one whose row '5' is of another class"):
        audit(of_records, MADE.unseen(4, 5, 6, train=(TRAIN["x"], labels)))
    with pytest.raises(TaskError, match="one whose row '6' is with other content"):
        audit(of_records, MADE.unseen(4, 5, 6, train=(x, TRAIN["y"])))


def test_after_a_reload_labels_still_tell(of_records, tmp_path):
    back = expunge.load_run(expunge.save_run(of_records, tmp_path / "r"), factory=MADE.factory)
    assert audit(back, MADE.unseen(4, 5, 6)).counts["forget-train"] == 3
    labels = TRAIN["y"].clone()
    labels[5] = 3
    with pytest.raises(TaskError, match="row '5' is of another class"):
        audit(back, MADE.unseen(4, 5, 6, train=(TRAIN["x"], labels)))


def test_without_the_private_part_scope_and_number_tell(of_class, of_records, tmp_path):
    runs = []
    for name, result in (("class", of_class), ("records", of_records)):
        path = expunge.save_run(result, tmp_path / name)
        shutil.rmtree(path / "private")
        runs.append(expunge.load_run(path, factory=MADE.factory))
    assert audit(runs[0], MADE.absent(1)).counts["forget-train"] == 32
    assert audit(runs[1], MADE.unseen(4, 5, 6)).counts["forget-train"] == 3
    for run, task, words in (
        (runs[0], MADE.absent(1, 2), "one with 64 records, not 32"),
        (runs[0], MADE.unseen(1), "one for records"),
        (runs[1], MADE.unseen(4, 5), "one with 2 records, not 3"),
        (runs[1], MADE.unseen(4, 5, 6, 7), "one with 4 records, not 3"),
    ):
        with pytest.raises(TaskError, match=words):
            audit(run, task)


def _with_copies(*pairs):
    x, y = TRAIN["x"].clone(), TRAIN["y"].clone()
    for source, copied in pairs:
        x[copied], y[copied] = x[source], y[source]
    return x, y


@pytest.mark.parametrize("entangled", ["refuse", "forget-twins"])
def test_a_request_is_known_as_it_was_asked(tmp_path, entangled):
    """Records that were refused belong to it, rows that joined do not; also after a reload."""
    task = forget_indices(_with_copies((0, 100)), range(10), holdout=HOLDOUT)
    result = unlearn(MADE.trained(), Prune(entangled=entangled), task, seed=0)
    assert (list(result.refused), result.forgotten[0].joined) == (
        (["0"], ()) if entangled == "refuse" else ([], ("100",))
    )
    path = expunge.save_run(result, tmp_path / "r")
    back = expunge.load_run(path, factory=MADE.factory)
    assert back.refused == result.refused
    again = forget_indices(_with_copies((0, 100)), range(10), holdout=HOLDOUT)
    fewer = forget_indices(_with_copies((0, 100)), range(9), holdout=HOLDOUT)
    for run in (result, back):
        assert audit(run, again).counts["forget-train"] == 10
        with pytest.raises(TaskError, match="'9' first"):
            audit(run, fewer)
    shutil.rmtree(path / "private")
    (path / "features.safetensors").unlink()
    alone = expunge.load_run(path, factory=MADE.factory)
    assert audit(alone, again).counts["forget-train"] == 10


def test_a_class_request_may_name_records_forgotten_before():
    first = unlearn(MADE.trained(), FineTune(epochs=1), MADE.unseen(1, 6), seed=0)
    second = unlearn(first, MaskClass(), MADE.absent(1), seed=0)
    assert "1" not in second.forgotten[1].ids
    assert audit(second, MADE.absent(1)).commitment == second.record.commitment
    with pytest.raises(TaskError, match="one for records"):
        audit(second, MADE.unseen(1, 6))


@pytest.mark.usefixtures("unread")
def test_another_original_is_refused(of_class):
    words = r"Expected `original` to be the model that was given to `unlearn` .* other weights"
    with pytest.raises(ModelError, match=words):
        audit(of_class, MADE.absent(1), original=MADE.factory())
    with torch.no_grad():
        other = MADE.trained()
        other.head.bias[0] += 1e-6
    with pytest.raises(ModelError, match=words):
        audit(of_class, MADE.absent(1), original=other)


@pytest.mark.usefixtures("unread")
def test_before_and_after_cannot_change_places(of_class):
    swapped = dataclasses.replace(of_class, original=of_class.model, model=of_class.original)
    with pytest.raises(ModelError, match="to be the model that was given to `unlearn`"):
        audit(swapped, MADE.absent(1))


def test_an_original_changed_since_is_no_original():
    model = MADE.trained()
    result = unlearn(model, MaskClass(), MADE.absent(1), seed=0)
    nn.init.zeros_(model.head.weight)
    with pytest.raises(ModelError, match="unchanged since"):
        audit(result, MADE.absent(1))
    report = audit(result, MADE.absent(1), original=MADE.trained())
    assert report.value("accuracy", "before", "others") > 90.0


def test_the_report_of_another_run_is_not_saved(of_class, of_records, tmp_path):
    path = expunge.save_run(of_class, tmp_path / "r")
    report = audit(of_class, MADE.absent(1))
    assert save_audit(path, report).parent == path / "audits"
    with pytest.raises(InputError, match=r"an audit of the run in .*another request"):
        save_audit(path, audit(of_records, MADE.unseen(4, 5, 6)))
    for name, value in (
        ("digest_before", "0" * 64),
        ("method", "retrain"),
        ("limits", expunge.Limits(forget_accuracy=20)),
    ):
        with pytest.raises(InputError, match="to be an audit of the run"):
            save_audit(path, dataclasses.replace(report, **{name: value}))


def test_the_report_of_a_changed_model_is_not_saved(of_class, tmp_path):
    path = expunge.save_run(of_class, tmp_path / "r")
    changed = dataclasses.replace(of_class, model=copy.deepcopy(of_class.model))
    nn.init.zeros_(changed.model.head.weight)
    with pytest.raises(InputError, match=r"another weights\. .* changed since `unlearn`"):
        save_audit(path, audit(changed, MADE.absent(1)))
