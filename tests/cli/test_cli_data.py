"""Lists, masks, names and columns in a job."""

import json

import numpy as np
import pytest

NAMES = np.array(["ant", "bee", "cat", "dog"])


def _history(project, out):
    return json.loads((project.folder / out / "private" / "history.json").read_text())


def _mask_class(project, selection, *more):
    return project.job(("classes = [1]", selection), ('"prototype-surgery"', '"mask-class"'), *more)


def _save(folder, name, mask):
    if name.endswith(".npy"):
        np.save(folder / name, mask)
    elif name.endswith(".npz"):
        np.savez(folder / name, gone=mask)
    else:
        (folder / name).write_text("\n".join(str(entry) for entry in mask) + "\n")


@pytest.mark.parametrize("name", ["gone.npy", "gone.npz", "gone.txt", "gone.csv"])
def test_a_mask_in_a_file_is_a_mask(project, name):
    _save(project.folder, name, np.array([False, False, True, False]))
    code, _, err = project.run("unlearn", _mask_class(project, f'classes = "{name}"'), "--out", "r")
    assert code in (0, 11), err
    assert _history(project, "r")["requests"][0]["classes"] == [2]


@pytest.mark.parametrize("key", ["classes", "indices", "ids"])
def test_a_mask_of_another_length_is_refused(project, key):
    np.save(project.folder / "gone.npy", np.array([False, True]))
    code, _, err = project.run("check", _mask_class(project, f'{key} = "gone.npy"'))
    assert code == 2
    assert "truth values, one a" in err
    assert "got 2. Give one of that length" in err


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: np.savez(p, a=[1], b=[2]), "a file with one array, but gone.npz holds a, b"),
        (lambda p: np.savez(p, a=np.zeros((2, 3))), "to be one list, but gone.npz holds an array"),
        (lambda p: np.savez(p, a=[np.inf]), "to hold integers"),
        (lambda p: p.write_bytes(b"PK\x03\x04 not really"), "but reading gone.npz raised"),
    ],
)
def test_files_of_a_list_are_refused_by_message(project, write, words):
    write(project.folder / "gone.npz")
    code, _, err = project.run("check", _mask_class(project, 'classes = "gone.npz"'))
    assert code == 2
    assert words in err


def test_a_table_is_no_list(project):
    (project.folder / "gone.csv").write_text("id,label\n3,1\n")
    code, _, err = project.run("check", _mask_class(project, 'classes = "gone.csv"'))
    assert code == 2
    assert "one column without a header, but gone.csv holds the line id,label" in err.replace(
        "'", ""
    )


def _named(project):
    for name in ("train", "holdout"):
        with np.load(project.folder / f"{name}.npz") as archive:
            table = {"scan": archive["x"], "finding": NAMES[archive["y"]], "id": archive["id"]}
        np.savez(project.folder / f"{name}.npz", **table)
    return ('train = "train.npz"', 'input = "scan"\nlabel = "finding"\ntrain = "train.npz"')


def test_columns_and_class_names(project):
    job = _mask_class(project, 'classes = ["bee"]', _named(project))
    code, out, err = project.run("unlearn", job, "--out", "r")
    assert code in (0, 11), err
    assert "classes: 0 = ant, 1 = bee, 2 = cat, 3 = dog" in err
    assert _history(project, "r")["requests"][0]["classes"] == [1]
    assert _history(project, "r")["class_names"] == list(NAMES)
    code, out, err = project.run("check", job, "--json")
    assert code == 0, err
    assert json.loads(out)["class_names"] == list(NAMES)


def test_class_names_of_the_job_stay_private(project):
    job = _mask_class(project, 'classes = ["bee"]', _named(project))
    text = (project.folder / job).read_text()
    (project.folder / job).write_text(
        text.replace("[data]", '[data]\nclasses = ["dog", "cat", "bee", "ant"]')
    )
    _, _, err = project.run("unlearn", job, "--out", "r")
    assert "classes: 0 = dog, 1 = cat" in err
    assert 'classes = "private"' in (project.folder / "r" / "job.toml").read_text()
    assert "bee" in (project.folder / "r" / "private" / "job.toml").read_text()


@pytest.mark.parametrize("gone", [False, True], ids=["rows still there", "rows gone"])
def test_records_forgotten_already_are_passed_over_where_asked(project, gone):
    with np.load(project.folder / "train.npz") as archive:
        table = dict(archive)
    first, second, third = (str(i) for i in table["id"][:3])
    method = ('"prototype-surgery"', '"fine-tune"\nepochs = 1')
    job = project.job(("classes = [1]", f'ids = ["{first}", "{second}"]'), method)
    assert project.run("unlearn", job, "--out", "one")[0] in (0, 11, 12)
    run = project.folder / "one"
    if not (run / "model.safetensors").exists():
        pytest.skip("the first run was not accepted")
    if gone:
        np.savez(project.folder / "train.npz", **{k: v[1:] for k, v in table.items()})
    start = ('weights = "w.safetensors"', 'run = "one"')
    ids = f'ids = ["{first}", "{third}"]'
    job = project.job(("classes = [1]", ids), method, start)
    code, _, err = project.run("check", job)
    assert code == 2
    assert f"got '{first}' again" in err
    assert "already" in err
    job = project.job(("classes = [1]", f'{ids}\nalready = "skip"'), method, start)
    code, _, err = project.run("unlearn", job, "--out", "two")
    assert code in (0, 11, 12, 13), err
    assert "were forgotten before and were passed over" in err
    assert _history(project, "two")["requests"][1]["ids"] == [third]
