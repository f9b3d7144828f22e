"""A run folder whose parts were edited, or exchanged with those of another run, is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import expunge
from expunge import LeastSquaresRemoval, MaskClass, Prune, unlearn
from expunge.certificate import verify
from expunge.errors import InputError, ModelError, StatisticsError
from expunge.runs import save_audit
from expunge.testing import toy

MADE = toy("mlp")
REQUESTS = {
    "class": (LeastSquaresRemoval(), MADE.absent(1)),
    "other class": (LeastSquaresRemoval(), MADE.absent(2)),
    "records": (Prune(form="gated"), MADE.unseen(0, 1, 10)),
    "other records": (Prune(form="gated"), MADE.unseen(1, 6, 11)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, (method, task) in REQUESTS.items():
        expunge.save_run(unlearn(MADE.trained(), method, task, seed=0), folder / name)
    return folder


@pytest.fixture
def runs(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "runs")


def _load(path):
    return expunge.load_run(path, factory=MADE.factory)


def _edited(path, change):
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def _without_digests(run):
    """The folder as an older version wrote it."""
    _edited(run / "private/history.json", lambda h: [h.pop("record"), h.pop("parts")])


@pytest.mark.parametrize("name", REQUESTS)
def test_whole_folders_load_with_and_without_digests(runs, name):
    first = _load(runs / name)
    _without_digests(runs / name)
    assert _load(runs / name).record == first.record


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["outcome"].update(outcome="incomplete"),
        lambda r: r["limits"].update(forget_accuracy=20.0),
        lambda r: r["cost"].update(seconds=0.5),
    ],
    ids=["outcome", "limits", "cost"],
)
def test_an_edited_record_is_refused(runs, change):
    _edited(runs / "class/record.json", change)
    with pytest.raises(InputError, match=r"record\.json as the run wrote it .* It was edited"):
        _load(runs / "class")


def test_ineffective_does_not_become_done(runs, tmp_path):
    method = expunge.FineTune(epochs=1, lr=1e-4)
    path = expunge.save_run(unlearn(MADE.trained(), method, MADE.absent(1), seed=0), tmp_path / "i")
    assert not _load(path).outcome.outcome.accepted
    _edited(path / "record.json", lambda r: r["outcome"].update(outcome="done"))
    (path / "rejected.safetensors").rename(path / "model.safetensors")
    with pytest.raises(InputError, match=r"record\.json as the run wrote it"):
        _load(path)


EXCHANGED = [
    ("class", "model.safetensors", ModelError),
    ("class", "job.toml", InputError),
    ("class", "private/members.npy", InputError),
    ("class", "private/history.json", InputError),
    ("records", "model.safetensors", ModelError),
    ("records", "job.toml", InputError),
    ("records", "certificate.dsse.json", InputError),
    ("records", "features.safetensors", InputError),
    ("records", "private/records.json", InputError),
    ("records", "private/history.json", InputError),
    ("class", "private/job.toml", InputError),
    ("records", "private/job.toml", InputError),
]
BY_DIGEST = {"private/members.npy", "private/job.toml"}
OLD = [case for case in EXCHANGED if case[1] not in BY_DIGEST]
"""In older folders too: these are bound by a digest alone."""


@pytest.mark.parametrize(
    ("old", "name", "part", "error"),
    [*((False, *case) for case in EXCHANGED), *((True, *case) for case in OLD)],
)
def test_a_part_of_another_run_is_refused(runs, old, name, part, error):
    if old:
        _without_digests(runs / name)
        _without_digests(runs / f"other {name}")
    shutil.copyfile(runs / f"other {name}" / part, runs / name / part)
    with pytest.raises(error):
        _load(runs / name)


def test_statistics_and_their_ids_of_another_class_are_refused(runs):
    """One backbone: only the ids tell."""
    for part in ("statistics.safetensors", "private/members.npy"):
        shutil.copyfile(runs / "other class" / part, runs / "class" / part)
    _without_digests(runs / "class")
    with pytest.raises(StatisticsError, match="got 32 forgotten records among them"):
        _load(runs / "class")


def test_fewer_ids_than_rows_are_refused(runs):
    file = runs / "class/private/members.npy"
    np.save(file, np.load(file)[1:])
    with pytest.raises(InputError, match=r"members\.npy as the run wrote it"):
        _load(runs / "class")
    _without_digests(runs / "class")
    with pytest.raises(StatisticsError, match="got 127 ids for 128 rows"):
        _load(runs / "class")


def test_statistics_of_another_backbone_are_refused_without_the_private_part(runs, tmp_path):
    other = MADE.factory()
    result = unlearn(other, LeastSquaresRemoval(), MADE.absent(1), seed=0)
    path = expunge.save_run(result, tmp_path / "o")
    shutil.copyfile(path / "statistics.safetensors", runs / "class/statistics.safetensors")
    shutil.rmtree(runs / "class/private")
    with pytest.raises(StatisticsError, match="Expected statistics of this model's backbone"):
        _load(runs / "class")


def test_a_job_of_another_request_is_refused_without_the_private_part(runs):
    shutil.rmtree(runs / "class/private")
    assert not _load(runs / "class").history_known
    shutil.copyfile(runs / "other class/job.toml", runs / "class/job.toml")
    with pytest.raises(InputError, match=r"job of the run, got another commitment than in the rec"):
        _load(runs / "class")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('aim = "absent"', 'aim = "unseen"', "another aim"),
        ('scope = "classes"', 'scope = "records"', "another scope"),
        ("[forget]", "split_seed = 1\n\n[forget]", "another split_seed"),
        ("commitments_before = []", 'commitments_before = ["aa"]', "another commitments_before"),
        ("[forget]", "[forgotten]", "reading it raised KeyError"),
        ("[forget]", "[forget", "reading it raised TOMLDecodeError"),
    ],
)
def test_an_edited_job_is_refused(runs, old, new, words):
    _without_digests(runs / "class")
    file = runs / "class/job.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=words):
        _load(runs / "class")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"certificate": "none"}, "the record says that there is none"),
        ({"certified_count": 2}, "it claims 3 records, the record says 2"),
        ({"seed": 7}, "it names another seed"),
    ],
)
def test_a_record_that_a_certificate_contradicts_is_refused(runs, change, words):
    """Where nothing private can tell: the certificate is held against the record."""
    run = runs / "records"
    shutil.rmtree(run / "private")
    assert _load(run).evidence is None
    _edited(run / "record.json", lambda r: r.update(change))
    with pytest.raises((InputError, ModelError), match=words):
        _load(run)


def test_changed_rows_are_refused_by_both_readers(runs):
    run = runs / "records"
    file = run / "features.safetensors"
    rows = load_file(file)
    rows["forget"][0, 0] += 1
    file.unlink()
    save_file(rows, file, metadata={"format": "expunge-features-v1"})
    with pytest.raises(InputError, match="to open its certificate"):
        _load(run)
    assert verify(run).verdict == "refuted"


def test_a_request_exchanged_in_a_sequence_is_refused(tmp_path):
    first = unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0)
    path = expunge.save_run(
        unlearn(first, MaskClass(), MADE.absent(2), seed=0), tmp_path / "second"
    )
    assert len(_load(path).forgotten) == 2
    _edited(path / "private/history.json", lambda h: h["requests"][0].update(classes=[3]))
    with pytest.raises(InputError, match="another commitments_before"):
        _load(path)


def test_an_audit_of_a_loaded_run_goes_beside_it(runs):
    run = _load(runs / "class")
    report = expunge.audit(run, MADE.absent(1))
    assert expunge.runs.save_audit(runs / "class", report).is_dir()


@pytest.mark.parametrize("part", ["left.json", "witnesses.json", "job.toml"])
def test_an_edited_private_file_is_refused(runs, part):
    file = runs / "records/private" / part
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(InputError, match="It was edited or exchanged"):
        _load(runs / "records")


def test_an_audit_of_another_run_is_refused(runs):
    for name in ("class", "other class"):
        method, task = REQUESTS[name]
        result = unlearn(MADE.trained(), method, task, seed=0)
        path = expunge.save_run(result, runs / f"fresh {name}")
        save_audit(path, expunge.audit(result, task))
        _load(path)
    other = next((runs / "fresh other class/audits").iterdir())
    shutil.copytree(other, runs / "fresh class/audits/put-there")
    with pytest.raises(InputError, match="to be an audit of the run, got one of another run"):
        _load(runs / "fresh class")
    (runs / "fresh class/audits/put-there/audit.json").write_text("{")
    with pytest.raises(InputError, match="reading it raised JSONDecodeError"):
        _load(runs / "fresh class")
