"""`expunge unlearn` from end to end: run folders, exit codes, streams, sequences, interruptions."""

import errno
import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import expunge
import expunge.storage.whole as stored

FRESH = """
import sys
sys.path.insert(0, ".")
import numpy as np, torch, jobnets, expunge
torch.set_num_threads(1)
run = expunge.load_run(sys.argv[1], factory=jobnets.net)
x = torch.from_numpy(np.load("holdout.npz")["x"])
with torch.no_grad():
    np.save(sys.argv[2], run.model(x).numpy())
print(run.outcome.outcome.value, len(run.forgotten), sorted(run.forgotten[-1].classes))
"""


def fresh_process(project, run):
    done = subprocess.run(
        [sys.executable, "-c", FRESH, run, "logits.npy"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return np.load(project.folder / "logits.npy"), done.stdout.split()


def logits(model, project):
    x = torch.from_numpy(np.load(project.folder / "holdout.npz")["x"])
    with torch.no_grad():
        return model(x).numpy()


def public_files(run: Path):
    return [p for p in run.rglob("*") if p.is_file() and "private" not in p.parts]


def test_run_folder_of_a_done_job(project):
    code, out, err = project.run("unlearn", project.job(), "--out", "r")
    assert (code, out) == (0, "r\n")
    run = project.folder / "r"
    assert {p.name for p in run.iterdir()} == {
        "audits",
        "job.toml",
        "model.safetensors",
        "private",
        "record.json",
        "statistics.safetensors",
    }
    assert "done: 0.00 %" in err
    assert "mask-class" in err
    assert 'next: expunge.load_run("r", factory=...)' in err
    (audit,) = (run / "audits").iterdir()
    assert json.loads((audit / "audit.json").read_text())["outcome"]["outcome"] == "done"


def test_default_folder_says_when_what_and_which(project):
    code, out, _ = project.run("unlearn", project.job(), "--method", "mask-class")
    assert code == 0
    stamp, rest = Path(out.strip()).name.split("-", 1)
    assert Path(out.strip()).parent == Path("runs")
    assert len(stamp) == len("20250131T235959Z")
    assert rest.startswith("mask-class-")
    assert len(rest) == len("mask-class-") + 8


def test_a_fresh_process_gives_equal_logits(project):
    project.run("unlearn", project.job(), "--out", "r")
    import jobnets

    here = expunge.load_run(project.folder / "r", factory=jobnets.net)
    there, words = fresh_process(project, "r")
    assert np.array_equal(logits(here.model, project), there)
    assert not np.array_equal(logits(project.model(), project), there)
    assert words == ["done", "1", "[1]"]


def test_nothing_that_identifies_leaves_private(project):
    ids = ["person-0007", "person-0011"]
    extra = '[training]\nfit = "jobdata:fit"\n'
    job = project.job(
        ("classes = [1]", f"ids = {json.dumps(ids)}"), ("prototype-surgery", "retrain"), extra=extra
    )
    code, out, _ = project.run("unlearn", job, "--out", "r")
    assert (code, out) == (11, "r\n")  # two records: no membership statement is possible
    run = project.folder / "r"
    private = json.loads((run / "private" / "history.json").read_text())
    assert private["requests"][0]["ids"] == ids
    assert private["requests"][0]["labels"] == [3, 3]
    salt = private["requests"][0]["salt"]
    for file in public_files(run):
        content = file.read_bytes()
        assert not [t for t in [*ids, salt] if t.encode() in content], file
    assert tomllib.loads((run / "private" / "job.toml").read_text())["forget"]["ids"] == ids


def test_job_and_record_name_no_class_and_no_forget_file(project):
    with np.load(project.folder / "train.npz") as archive:
        mine = {k: archive[k][archive["y"] == 1] for k in archive.files}
    np.savez(project.folder / "rows-of-one.npz", **mine)
    (project.folder / "ids-of-one.txt").write_text("\n".join(mine["id"]) + "\n")
    (project.folder / "classes.txt").write_text("1\n")
    job = project.job(
        ('train = "train.npz"', 'forget = "rows-of-one.npz"\nids = "ids-of-one.txt"'),
        ("classes = [1]", 'classes = "classes.txt"'),
        ("prototype-surgery", "mask-class"),
    )
    assert project.run("unlearn", job, "--out", "r")[0] == 0
    run = project.folder / "r"
    public = tomllib.loads((run / "job.toml").read_text())
    assert set(public["forget"]) == {"aim", "scope", "commitment", "commitments_before"}
    assert public["data"]["forget"] == "private"
    assert set(public["files"]) == {"model.weights", "data.holdout"}
    text = (run / "job.toml").read_text() + (run / "record.json").read_text()
    assert "-of-one" not in text
    assert "classes.txt" not in text
    assert "classes" not in json.loads((run / "record.json").read_text())
    private = json.loads((run / "private" / "history.json").read_text())
    assert {"data.forget", "data.ids", "forget.classes"} <= set(private["files"])


def test_private_is_for_the_owner_alone(project):
    project.run("unlearn", project.job(), "--out", "r")
    private = project.folder / "r" / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in private.iterdir()}
    assert modes == {"history.json": 0o600, "job.toml": 0o600, "members.npy": 0o600}


def test_public_files_have_the_usual_mode(project):
    before = os.umask(0o022)
    try:
        project.run("unlearn", project.job(), "--out", "r")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in public_files(project.folder / "r")}
    assert modes == {0o644}


def test_the_resolved_job_holds_defaults_overrides_and_digests(project):
    import hashlib

    project.run("unlearn", project.job(), "--method", "mask-class", "--seed", "5", "--out", "r")
    job = tomllib.loads((project.folder / "r" / "job.toml").read_text())
    assert job["method"] == {"name": "mask-class", "margin": 10.0}
    assert job["seed"] == 5
    assert "split_seed" not in job
    assert job["limits"]["mean_drop"] == 2.0
    weights = (project.folder / "w.safetensors").read_bytes()
    assert job["files"]["model.weights"] == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize(
    ("settings", "holdout", "code", "outcome", "advice"),
    [
        ('name = "mask-class"', True, 0, "done", "load_run"),
        ('name = "mask-class"', False, 11, "undetermined", "holdout"),
        ('name = "mu-mis"\nstep = 1e-300', True, 12, "no-op", "--method prototype-surgery"),
        ('name = "fine-tune"\nepochs = 1', True, 12, "ineffective", "--method prototype-surgery"),
        ('name = "fine-tune"\nlr = 1000.0\nepochs = 1', True, 13, "wrecked", "--method"),
    ],
)
def test_each_outcome_has_its_exit_code(project, settings, holdout, code, outcome, advice):
    changes = [('name = "prototype-surgery"', settings)]
    if not holdout:
        changes.append(('holdout = "holdout.npz"\n', ""))
    got, out, err = project.run("unlearn", project.job(*changes), "--out", "r")
    assert (got, out) == (code, "r\n")
    assert f"{outcome}: " in err
    assert advice in err.split("next: ")[1]
    accepted = code in (0, 11)
    run = project.folder / "r"
    assert (run / "model.safetensors").exists() == accepted
    assert (run / "rejected.safetensors").exists() != accepted


def test_json_is_the_whole_stdout(project):
    code, out, _ = project.run("unlearn", project.job(), "--out", "r", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["run"] == "r"
    assert (facts["outcome"], facts["exit_code"]) == ("done", 0)
    assert Path(facts["weights"]).exists()
    assert Path(facts["audit"]).exists()
    assert facts["figures"]["forget_after"] == 0.0


def test_an_audit_that_contradicts_the_run_is_told_first_and_exits_with_10(project, monkeypatch):
    from expunge.auditing import door
    from expunge.reasons import Reason
    from expunge.records import Outcome, OutcomeReport

    facts = {"left": 40.0, "where": "forget records", "limit": 5.0}
    own = OutcomeReport.of(Outcome.INEFFECTIVE, Reason.STILL_KNOWN, **facts)
    monkeypatch.setattr(door, "judged_again", lambda *_: own)
    code, out, err = project.run("unlearn", project.job(), "--out", "r", "--json")
    assert code == 10
    assert err.startswith(
        "warning: the audit contradicts the run, and judges ineffective: 40.00 % of the forget"
    )
    assert "done: " in err
    assert json.loads(out)["contradicts"] is True


def test_a_second_attempt_is_told_on_screen_and_in_json(project):
    _, _, err = project.run("unlearn", project.job(), "--out", "all/a")
    assert "earlier attempt" not in err
    _, out, err = project.run("unlearn", project.job(), "--out", "all/b", "--seed", "1", "--json")
    assert "warning: 1 earlier attempt at this request here: prototype-surgery done 1" in err
    assert json.loads(out)["attempts"] == {"prototype-surgery done": 1}


def test_what_user_code_prints_stays_off_stdout(project):
    code, out, err = project.run("unlearn", project.job(("jobnets:net", "jobnets:loud")))
    assert code == 0
    assert out.startswith("runs/")
    assert out.count("\n") == 1
    assert "building the net" in err


def test_record_requests_by_index_file_and_id_file(project):
    np.save(project.folder / "idx.npy", np.arange(0, 40, 4))
    (project.folder / "ids.txt").write_text("person-0000\nperson-0004\n\n")
    extra = "[training]\nepochs = 2\nbatch_size = 32\ntransform = 'jobdata:scale'\n"
    for selection, count in (('indices = "idx.npy"', 10), ('ids = "ids.txt"', 2)):
        job = project.job(
            ("classes = [1]", selection), ("prototype-surgery", "retrain"), extra=extra
        )
        code, out, _ = project.run("unlearn", job, "--out", f"r{count}")
        assert code in (0, 11)  # so few records may allow no membership statement
        record = json.loads((project.folder / out.strip() / "record.json").read_text())
        assert (record["forget_count"], record["aim"]) == (count, "unseen")


def test_references_are_runs_or_weights(project):
    extra = '[training]\nfit = "jobdata:fit"\n'
    for seed in ("1", "2"):
        job = project.job(("prototype-surgery", "retrain"), extra=extra)
        assert project.run("unlearn", job, "--seed", seed, "--out", f"retrained-{seed}")[0] == 0
    weights = "retrained-2/model.safetensors"
    extra = f'[references]\nretrained = ["retrained-1", "{weights}"]\n'
    code, _, err = project.run("unlearn", project.job(extra=extra), "--out", "r")
    assert code == 0
    assert "retrained ×2" in err
    job = tomllib.loads((project.folder / "r" / "job.toml").read_text())
    assert {"references.retrained.0", "references.retrained.1"} <= set(job["files"])


def test_what_a_run_forgot_stays_forgotten(project):
    assert project.run("unlearn", project.job(), "--out", "first")[0] == 0
    second = project.job(
        ('weights = "w.safetensors"', 'run = "first"'),
        ("[1]", "[2]"),
        ("prototype-surgery", "least-squares-removal"),
    )
    code, _, err = project.run("unlearn", second, "--out", "second")
    assert code == 0, err
    record = json.loads((project.folder / "second" / "record.json").read_text())
    assert (record["earlier_requests"], record["retain_count"]) == (1, 160)
    assert record["log"].get("statistics_seconds") is None  # the run's own statistics served
    public = tomllib.loads((project.folder / "second" / "job.toml").read_text())
    first = json.loads((project.folder / "first" / "record.json").read_text())
    assert public["forget"]["commitments_before"] == [first["commitment"]]
    there, words = fresh_process(project, "second")
    assert words == ["done", "2", "[2]"]
    labels = np.load(project.folder / "train.npz")["y"]
    assert not set(there.argmax(1).tolist()) & {1, 2}
    assert len(labels) == 320
    again = project.job(('weights = "w.safetensors"', 'run = "second"'))
    code, _, err = project.run("unlearn", again)
    assert code == 2
    assert "got class 1 again. It stays forgotten" in err


def test_statistics_that_still_hold_forgotten_records_are_refused(project):
    project.run("statistics", project.job(), "--out", "S.safetensors")
    project.run("unlearn", project.job(), "--out", "first")
    job = project.job(
        ('weights = "w.safetensors"', 'run = "first"'),
        ("[1]", "[2]"),
        ('holdout = "holdout.npz"', 'holdout = "holdout.npz"\nstatistics = "S.safetensors"'),
    )
    code, _, err = project.run("unlearn", job)
    assert code == 2
    assert "Expected statistics without the records forgotten earlier" in err


def test_a_run_without_private_loads_but_serves_no_further_request(project):
    import shutil

    project.run("unlearn", project.job(), "--out", "first")
    shutil.rmtree(project.folder / "first" / "private")
    job = project.job(('weights = "w.safetensors"', 'run = "first"'), ("[1]", "[2]"))
    code, out, err = project.run("unlearn", job)
    assert (code, out) == (2, "")
    assert "got one loaded without its private/ part" in err
    assert "Put private/ back" in err


def test_a_rejected_run_is_no_start(project):
    job = project.job(('name = "prototype-surgery"', 'name = "fine-tune"\nepochs = 1'))
    assert project.run("unlearn", job, "--out", "poor")[0] == 12
    code, _, err = project.run(
        "unlearn", project.job(('weights = "w.safetensors"', 'run = "poor"'))
    )
    assert code == 2
    assert "Expected `model.run` to be a run that was accepted, got poor" in err


def test_an_existing_folder_is_refused_before_any_work(project, monkeypatch):
    (project.folder / "r").mkdir()
    monkeypatch.setattr(expunge, "unlearn", None)
    code, out, err = project.run("unlearn", project.job(), "--out", "r")
    assert (code, out) == (2, "")
    assert "Expected a place that does not exist yet, got r, which does" in err


def test_a_full_disk_leaves_nothing(project, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(project.folder.iterdir())
    job = project.job()
    monkeypatch.setattr(stored.os, "fsync", full)
    code, out, err = project.run("unlearn", job, "--out", "r")
    assert (code, out) == (2, "")
    assert "but the disk is full. Free some space" in err
    assert {p.name for p in project.folder.iterdir()} - {p.name for p in before} <= {
        "job.toml",
        "__pycache__",
    }


@pytest.mark.parametrize("where", ["work", "writing"])
def test_ctrl_c_leaves_nothing(project, monkeypatch, where):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    if where == "work":
        monkeypatch.setattr(expunge.MaskClass, "apply", stop)
    else:
        monkeypatch.setattr(stored.os, "fsync", stop)
    job = project.job()
    before = {p.name for p in project.folder.iterdir()} | {"__pycache__"}
    code, out, err = project.run("unlearn", job, "--method", "mask-class", "--out", "r")
    assert (code, out) == (130, "")
    assert "stopped: nothing is left half-written" in err
    assert {p.name for p in project.folder.iterdir()} <= before


def test_an_internal_error_is_told_without_a_traceback(project, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(expunge.MaskClass, "apply", broken)
    code, out, err = project.run("unlearn", project.job(), "--method", "mask-class")
    assert (code, out) == (3, "")
    assert "internal error: ZeroDivisionError: division by zero" in err
    assert "EXPUNGE_TRACEBACK=1" in err
    assert "Traceback" not in err


def test_a_failed_audit_says_that_the_run_is_written(project, monkeypatch):
    def failing(*_args, **_kwargs):
        raise expunge.ExpungeError("Expected an audit, got none.")

    monkeypatch.setattr(expunge, "audit", failing)
    code, _, err = project.run("unlearn", project.job(), "--out", "r")
    assert code == 2
    assert "Expected an audit, got none. (The run itself is written: r.)" in err
    assert (project.folder / "r" / "record.json").exists()


def test_row_numbers_given_as_ids_count_as_ids(project):
    # ids 0..n-1 that the file itself holds are ids, not row numbers
    train = dict(np.load(project.folder / "train.npz"))
    ids = np.array([str(i) for i in range(len(train["y"]))])
    np.savez(project.folder / "train.npz", x=train["x"], y=train["y"], id=ids)
    assert project.run("statistics", project.job(), "--out", "S.safetensors")[0] == 0
    own = train["y"] == 1
    np.savez(project.folder / "forget.npz", x=train["x"][own], y=train["y"][own], id=ids[own])
    job = project.job(
        ('train = "train.npz"', 'forget = "forget.npz"\nstatistics = "S.safetensors"')
    )
    code, _, err = project.run("unlearn", job, "--out", "r")
    assert code == 0, err


def test_byte_string_ids_are_text(project):
    train = dict(np.load(project.folder / "train.npz"))
    np.savez(project.folder / "train.npz", x=train["x"], y=train["y"], id=train["id"].astype("S"))
    code, _, err = project.run("unlearn", project.job(), "--out", "r")
    assert code == 0, err
    history = json.loads((project.folder / "r/private/history.json").read_text())
    assert history["requests"][0]["ids"][0].startswith("person-")


def test_a_factory_that_caches_keeps_models_apart(project):
    nets = project.folder / "jobnets.py"
    text = nets.read_text().replace(
        "def net(width", "import functools\n\n@functools.cache\ndef net(width"
    )
    nets.write_text(text)
    extra = "[training]\nepochs = 15\nbatch_size = 32\nlr = 0.05\n"
    job = project.job(extra=extra)
    for seed in ("1", "2"):
        options = ("--method", "retrain", "--seed", seed, "--out", f"retrained-{seed}")
        assert project.run("unlearn", job, *options)[0] == 0
    job = project.job(extra=extra + '[references]\nretrained = ["retrained-1", "retrained-2"]\n')
    code, _, err = project.run("unlearn", job, "--out", "r")
    assert code == 0, err
    assert "cosine to the original" in err
    (audit,) = (project.folder / "r" / "audits").iterdir()
    report = json.loads((audit / "audit.json").read_text())
    before = next(
        m["value"]
        for m in report["measurements"]
        if (m["name"], m["subject"], m["rows"]) == ("accuracy", "before", "forget-train")
    )
    assert before > 90
    standing = report["standing"]
    assert [one["reference"] for one in standing] == ["retrained-0", "retrained-1"]
    assert report["level"] == ("C1" if {o["level"] for o in standing} == {"C1"} else "unverified")
