"""init, check, methods, statistics, convert, and the face of the command line."""

import json
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import expunge
import expunge.storage.whole as stored
from expunge.cli._job import read_job
from expunge.reasons import Reason
from expunge.records import Outcome


def test_help_needs_no_torch():
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'pydantic', 'numpy'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from expunge.cli.main import main\n"
        "sys.exit(main(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "init", "check", "unlearn", "methods", "statistics", "convert"):
        assert name in done.stdout


def test_version(project):
    from importlib.metadata import version

    assert project.run("--version")[:2] == (0, version("expunge") + "\n")


def test_init_writes_a_job_that_reads(project):
    code, out, err = project.run("init", "new.toml")
    assert (code, out) == (0, "new.toml\n")
    assert "next: edit new.toml, then: expunge check new.toml" in err
    job = read_job(project.folder / "new.toml")
    assert job.forget is not None
    assert job.forget.classes == [1]


def test_init_comments_are_true(project):
    project.run("init", "new.toml")
    lines = (project.folder / "new.toml").read_text().splitlines()
    keep = (
        "# epochs",
        "# batch_size",
        "# lr",
        "# momentum",
        "# weight_decay",
        "# schedule",
        "# [training]",
        "# [references]",
        "# retrained",
        "# [limits]",
        "# mean_drop",
        "# worst_drop",
        "# confidence",
        "# forget_accuracy",
        "# least_rows",
        "# most_",
        "# kwargs",
        "# head",
        "# initial",
        '# ids = "ids',
        "# statistics",
        "# aim",
    )
    text = "\n".join(li.removeprefix("# ") if li.startswith(keep) else li for li in lines)
    (project.folder / "new.toml").write_text(text)
    job = read_job(project.folder / "new.toml")
    assert job.limits == {
        "forget_accuracy": 5.0,
        "mean_drop": 2.0,
        "worst_drop": 10.0,
        "confidence": 0.95,
        "least_rows": 20,
        "most_moved": 100.0,
        "most_flipped": 100.0,
    }
    recipe = expunge.Recipe()
    assert job.training == {
        name: getattr(recipe, name)
        for name in ("epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule")
    }


def test_init_never_writes_over(project):
    project.run("init", "new.toml")
    (project.folder / "new.toml").write_text("mine")
    code, out, err = project.run("init", "new.toml")
    assert (code, out) == (2, "")
    assert "got new.toml, which does" in err
    assert (project.folder / "new.toml").read_text() == "mine"


def test_check_edits_and_writes_nothing(project, monkeypatch):
    job = project.job()
    monkeypatch.setattr(expunge.PrototypeSurgery, "apply", None)
    before = {p.name for p in project.folder.iterdir()} | {"__pycache__"}
    code, out, err = project.run("check", job)
    assert (code, out) == (0, "")
    assert {p.name for p in project.folder.iterdir()} <= before
    assert "head 3, 16 features, 4 classes" in err
    assert "98.28 % on holdout" in err
    assert "80 rows matched" in err
    assert "forget, head, statistics" in err
    assert "warning" not in err
    assert err.endswith("next: expunge unlearn job.toml")


def test_check_as_json(project):
    code, out, _ = project.run("check", project.job(), "--json", "--method", "fine-tune")
    facts = json.loads(out)
    assert code == 0
    assert facts["forget_count"] == 80
    assert facts["retain_count"] == 240
    assert (facts["tune_count"], facts["judge_count"]) == (320, 320)
    assert facts["needs"] == ["retain"]
    assert facts["near_chance"] is False
    assert facts["expected_seconds"] > 0


@pytest.mark.parametrize(
    ("request_", "method", "rows"),
    [
        ("classes = [1]", "mask-class", 2 * (80 + 320)),
        ("classes = [1]", "least-squares-removal", 2 * (80 + 320) + 320),
        ("classes = [1]", "fine-tune", 2 * (80 + 320) + 3 * 5 * 240),
        ("indices = [0, 5]", "fine-tune", 2 * 2 * (2 + 320) + 2 * 318 + 3 * 5 * 318),
    ],
)
def test_check_expects_the_time_of_the_rows_that_a_run_reads(project, request_, method, rows):
    job = project.job(("classes = [1]", request_))
    code, out, _ = project.run("check", job, "--json", "--method", method)
    facts = json.loads(out)
    assert code == 0
    assert facts["expected_seconds"] == pytest.approx(rows * facts["seconds_a_row"])


def test_check_warns_near_chance(project):
    with np.load(project.folder / "holdout.npz") as archive:
        arrays = {k: archive[k] for k in archive.files}
    np.savez(project.folder / "holdout.npz", **(arrays | {"y": (arrays["y"] + 1) % 4}))
    code, _, err = project.run("check", project.job())
    assert code == 0
    assert err.startswith(
        "warning: undetermined from the start: what stays was near chance before the edit: "
    )
    assert "Label numbering? Normalisation? Already gone?" in err
    assert err.count("near chance") == 1
    job = project.job(("classes = [1]", "indices = [0, 5]"))
    code, _, err = project.run("check", job, "--method", "fine-tune")
    assert code == 0
    assert "warning: the accuracy is near chance (25.0 %): normalisation or label order?" in err


def test_check_says_first_that_a_class_is_not_recognised(project):
    """Its number in the data is another than in training."""
    order = np.array([0, 2, 1, 3])
    for name in ("train.npz", "holdout.npz"):
        with np.load(project.folder / name) as archive:
            arrays = {k: archive[k] for k in archive.files}
        np.savez(project.folder / name, **(arrays | {"y": order[arrays["y"]]}))
    job = project.job()
    code, _, err = project.run("check", job)
    assert code == 0
    assert err.startswith(
        "warning: undetermined from the start: class 1 was not recognised before the edit: "
    )
    code, out, _ = project.run("check", job, "--json")
    facts = json.loads(out)
    assert next(iter(facts)) == "undetermined"
    assert [reason["why"] for reason in facts["undetermined"]] == [Reason.NOT_KNOWN_BEFORE.value]
    assert "Label numbering?" in facts["undetermined"][0]["reason"]
    assert project.run("unlearn", job, "--out", "run")[0] == Outcome.UNDETERMINED.exit_code
    outcome = json.loads((project.folder / "run" / "record.json").read_text())["outcome"]
    assert outcome["why"] == facts["undetermined"][0]["why"]
    assert outcome["reason"] == facts["undetermined"][0]["reason"]


def test_check_counts_the_judge_rows_of_a_class(project):
    with np.load(project.folder / "holdout.npz") as archive:
        arrays = {k: archive[k] for k in archive.files}
    of_class = np.flatnonzero(arrays["y"] == 1)
    for left, words in (
        (40, "start: with 20 judge rows of class 1 up to 13.9 % of such rows may be recognised"),
        (0, "start: there is no judge row of class 1: that it is not given for the forget rec"),
    ):
        cut = {k: np.delete(v, of_class[left:], axis=0) for k, v in arrays.items()}
        np.savez(project.folder / "holdout.npz", **cut)
        _, _, err = project.run("check", project.job())
        assert words in err
    _, _, err = project.run("check", project.job(('holdout = "holdout.npz"', "")))
    assert err.startswith("warning: undetermined from the start: there is no holdout")


def test_views_of_a_job_reach_the_request(project, monkeypatch):
    module = project.folder / "jobsights.py"
    module.write_text("def louder(inputs):\n    return [1.1 * inputs, 1.2 * inputs]\n")
    seen, apply = [], expunge.MaskClass.apply

    def looking(self, model, task, run):
        seen.append(task.views)
        return apply(self, model, task, run)

    monkeypatch.setattr(expunge.MaskClass, "apply", looking)
    for number, named in enumerate(("jobsights:louder", "none")):
        text = f'holdout = "holdout.npz"\nviews = "{named}"'
        job = project.job(('holdout = "holdout.npz"', text))
        assert project.run("check", job)[0] == 0
        out = f"run-{number}"
        assert project.run("unlearn", job, "--method", "mask-class", "--out", out)[0] == 0
        assert f'views = "{named}"' in (project.folder / out / "job.toml").read_text()
    assert [getattr(views, "__name__", None) for views in seen] == ["louder", None]


def test_check_refuses_what_unlearn_refuses(project):
    code, out, err = project.run("check", project.job(("prototype-surgery", "retrain")))
    assert (code, out) == (2, "")
    assert "Expected `training`" in err


def test_check_of_a_further_request_leaves_forgotten_classes_out(project):
    project.run("unlearn", project.job(), "--out", "first")
    job = project.job(('weights = "w.safetensors"', 'run = "first"'), ("[1]", "[2]"))
    code, out, _ = project.run("check", job, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["accuracy"] > 95
    assert facts["retain_count"] == 160


def test_methods_table_and_json(project):
    code, out, err = project.run("methods")
    assert code == 0
    for method in expunge.METHODS:
        assert method.info.name in out
    assert "next: expunge init job.toml" in err
    code, out, _ = project.run("methods", "--json")
    facts = json.loads(out)
    assert [m["name"] for m in facts] == [m.info.name for m in expunge.METHODS]
    surgery = next(m for m in facts if m["name"] == "prototype-surgery")
    assert surgery["settings"]["labels"] == "leave-out"
    assert surgery["values"]["labels"] == '"leave-out", "ridge-head", "mask" or "paper"'
    assert surgery["values"]["strength"] == "a number above 0"
    assert all(m["settings"].keys() == m["values"].keys() for m in facts)
    assert surgery["needs"] == ["forget", "head", "statistics"]


def test_statistics_are_those_of_the_library(project):
    code, out, err = project.run("statistics", project.job(), "--out", "S.safetensors")
    assert (code, out) == (0, "S.safetensors\n")
    assert 'put statistics = "S.safetensors" under [data]' in err
    found = expunge.FeatureStatistics.load(project.folder / "S.safetensors")
    assert found.sums.rows == 320
    assert found.covers(["person-0000", "person-0319"])
    assert not found.covers(["person-0320"])
    extra = ('holdout = "holdout.npz"', 'holdout = "holdout.npz"\nstatistics = "S.safetensors"')
    assert project.run("unlearn", project.job(extra), "--out", "with")[0] == 0
    assert project.run("unlearn", project.job(), "--out", "without")[0] == 0
    first, second = (
        load_file(project.folder / name / "model.safetensors") for name in ("with", "without")
    )
    torch.testing.assert_close(first["3.weight"], second["3.weight"], rtol=1e-3, atol=1e-3)


def test_statistics_of_a_run_leave_out_what_it_forgot(project):
    project.run("unlearn", project.job(), "--out", "first")
    job = project.job(('weights = "w.safetensors"', 'run = "first"'))
    assert project.run("statistics", job, "--out", "S.safetensors")[0] == 0
    found = expunge.FeatureStatistics.load(project.folder / "S.safetensors")
    assert found.sums.counts.tolist() == [80, 0, 80, 80]


def test_statistics_refuse_random_rows_and_existing_files(project):
    job = project.job(('"train.npz"', '"jobdata:Noisy"'))
    code, _, err = project.run("statistics", job, "--out", "S.safetensors")
    assert code == 2
    assert "Switch off random augmentation" in err
    (project.folder / "S.safetensors").write_text("mine")
    code, _, err = project.run("statistics", project.job(), "--out", "S.safetensors")
    assert code == 2
    assert (project.folder / "S.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {f"model.{k}": v for k, v in s.items()},
            "global_step": 12,
        },
        lambda s: {"state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"model": s, "ema": {k: v + 1 for k, v in s.items()}, "epoch": 3},
        lambda s: {"net": s, "acc": 1.0},
        lambda s: {"ema": s},
        lambda s: {"model": {"state_dict": {f"_module.{k}": v for k, v in s.items()}}},
    ],
)
def test_convert_unwraps(project, wrap):
    state = project.state()
    torch.save(wrap(state), project.folder / "w.pt")
    code, out, err = project.run("convert", "w.pt", "new.safetensors")
    assert (code, out) == (0, "new.safetensors\n"), err
    made = load_file(project.folder / "new.safetensors")
    assert made.keys() == state.keys()
    assert all(torch.equal(made[k], state[k]) for k in state)
    assert 'put weights = "new.safetensors" under [model]' in err


def test_convert_keeps_a_submodule_called_model(project):
    torch.save({"model.weight": torch.ones(2)}, project.folder / "w.pt")
    project.run("convert", "w.pt", "new.safetensors")
    assert list(load_file(project.folder / "new.safetensors")) == ["model.weight"]


def test_convert_tied_and_sliced_tensors(project):
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": base, "b": base, "c": base[:, 1:]}, project.folder / "w.pt")
    assert project.run("convert", "w.pt", "new.safetensors")[0] == 0
    made = load_file(project.folder / "new.safetensors")
    assert torch.equal(made["b"], base)
    assert torch.equal(made["c"], base[:, 1:])


def test_convert_runs_no_code(project):
    import jobnets

    torch.save(jobnets.net(), project.folder / "w.pt")
    code, out, err = project.run("convert", "w.pt", "new.safetensors")
    assert (code, out) == (2, "")
    assert "can run code when it is opened, so it is refused" in err
    assert "save `model.state_dict()` alone" in err
    assert not (project.folder / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": torch.ones(2), "step": 3}, "Expected tensors only, got int under 'step'"),
        ([torch.ones(2)], "Expected a state dict (names to tensors), got list"),
        ({"a": torch.ones(2).to_sparse()}, "got 'a' sparse or quantised"),
    ],
)
def test_convert_refuses_what_is_no_state(project, content, words):
    torch.save(content, project.folder / "w.pt")
    code, _, err = project.run("convert", "w.pt", "new.safetensors")
    assert code == 2
    assert words in err


def test_convert_never_writes_over(project):
    torch.save({"a": torch.ones(2)}, project.folder / "w.pt")
    before = (project.folder / "w.safetensors").read_bytes()
    code, _, err = project.run("convert", "w.pt", "w.safetensors")
    assert code == 2
    assert "got w.safetensors, which does" in err
    assert (project.folder / "w.safetensors").read_bytes() == before


def test_convert_interrupted_leaves_nothing(project, monkeypatch):
    torch.save({"a": torch.ones(2)}, project.folder / "w.pt")
    before = sorted(project.folder.iterdir())

    def stop(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(stored.os, "fsync", stop)
    assert project.run("convert", "w.pt", "new.safetensors")[0] == 130
    assert sorted(project.folder.iterdir()) == before


def test_convert_sources(project):
    code, _, err = project.run("convert", "none.pt", "new.safetensors")
    assert code == 2
    assert "Expected a checkpoint at none.pt, found no file" in err
    save_file({"a": torch.ones(2)}, project.folder / "a.safetensors")
    code, _, err = project.run("convert", "a.safetensors", "new.safetensors")
    assert code == 2
    assert "it is safe already" in err


def test_the_private_job_runs_again(project):
    import shutil

    project.run("unlearn", project.job(), "--out", "r")
    shutil.copy(project.folder / "r" / "private" / "job.toml", project.folder / "again.toml")
    assert project.run("unlearn", "again.toml", "--out", "r2")[0] == 0
    first, second = (
        tomllib.loads((project.folder / r / "job.toml").read_text()) for r in ("r", "r2")
    )
    assert first["method"] == second["method"]
    assert first["files"] == second["files"]
    a, b = (load_file(project.folder / r / "model.safetensors") for r in ("r", "r2"))
    assert all(torch.equal(a[k], b[k]) for k in a)
