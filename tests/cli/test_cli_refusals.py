"""What is wrong is refused by message, with exit code 2, an empty stdout and no run folder."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file


def refused(project, job, *arguments, command="unlearn"):
    code, out, err = project.run(command, job, *arguments)
    assert (code, out) == (2, ""), err
    assert not (project.folder / "runs").exists()
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def with_arrays(project, name, **changes):
    with np.load(project.folder / name) as archive:
        arrays = {k: archive[k] for k in archive.files} | changes
    np.savez(project.folder / name, **arrays)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 0", "sead = 0", "unknown table or key 'sead'. Did you mean 'seed'?"),
        ("factory =", "factry =", "in [model], got the unknown key 'factry'. Did you mean 'factor"),
        ("holdout =", "holdut =", "in [data], got the unknown key 'holdut'. Did you mean 'holdout"),
        ("[forget]", "[forgot]", "unknown table or key 'forgot'. Did you mean 'forget'?"),
        ("[method]", "[limits]\nmean_dorp = 1\n[method]", "'mean_dorp'. Did you mean 'mean_drop'?"),
        ('"prototype-surgery"', '"prototype-sugery"', "Did you mean 'prototype-surgery'?"),
        ("[method]", "[method]\nstrenght = 1.0", "'strenght'. Did you mean 'strength'?"),
        ("[method]", "[training]\nepoch = 1\n[method]", "'epoch'. Did you mean 'epochs'?"),
        ("seed = 0", 'seed = "x"', "Expected `seed` to be an integer from 0, got 'x'."),
        (
            "seed = 0",
            "seed = -1",
            "Expected `seed` to be an integer from 0, got -1.",
        ),
        (
            '"jobnets:net"',
            "3",
            'Expected `model.factory` to be a callable as "package.module:name"',
        ),
        ("[1]", "[1.5]", "Expected `forget.classes` to be a list of class numbers or names, or"),
        ("[1]", "[1]\naim = 'gone'", 'to be "absent" (classes) or "unseen" (records), got'),
        ("[method]", "[method]\nstrength = 'big'", "be a number above 0, got 'big'."),
        ("[method]", "[method]\nstrength = 0", "`method.strength` to be a number above 0, got 0."),
        (
            "[method]",
            "[method]\nrefit_ridge = -1",
            "In the job it is `refit_ridge`, its name in earl",
        ),
        ("[method]", "[method]\nstrength = nan", "`method.strength` to be a number above 0, got n"),
        ("[method]", "[method]\nstrength = true", "to be a number above 0, got True."),
        ("[method]", "[method]\nstrength = [1.0]", "to be a number above 0, got [1.0]."),
        ("[method]", "[method]\nlabels = 'papr'", "got 'papr'. Did you mean 'paper'?"),
        ("[method]", "[training]\nepochs = 1.5\n[method]", "`training.epochs` to be an integer"),
        (
            "[method]",
            "[training]\nlr = 0\n[method]",
            "training.lr` to be a number above 0, got 0.",
        ),
        ("[method]", "[training]\nepochs = 0\n[method]", "to be an integer from 1, got 0."),
        (
            "[method]",
            "[training]\nmomentum = -1\n[method]",
            "to be a number from 0, got -1.",
        ),
        ("[method]", "[training]\nschedule = 'cos'\n[method]", '"constant", "cosine" or "step"'),
        ("[method]", "[limits]\nconfidence = 2\n[method]", "from 0.8 and at most 0.999, got 2."),
        (
            "[method]",
            "[limits]\nmean_drop = -1\n[method]",
            "be a number from 0 and at most 10, got -1.",
        ),
        (
            "[method]",
            "[limits]\nleast_rows = -1\n[method]",
            "be an integer from 2 and at most 10000, got -1.",
        ),
        (
            "[method]",
            "[limits]\nleast_rows = 0.5\n[method]",
            "be an integer from 2 and at most 10000, got 0.5.",
        ),
        ("[method]", "[references]\nretrained = 'r'\n[method]", "a list of run folders or safe"),
        ('weights = "w.safetensors"', "", "exactly one of `weights` and `run` in [model], got nei"),
        ('train = "train.npz"', "", "exactly one of `train` and `forget` in [data], got neither"),
        (
            "classes = [1]",
            "",
            "exactly one of `classes`, `indices` and `ids` in [forget], got none",
        ),
        ("[1]", "[1]\nindices = [2]", "got classes and indices."),
        ('name = "prototype-surgery"', "", "Expected `method.name` to name a method, got nothing"),
        ("seed = 0", "seed = ", "to be TOML, but reading it raised"),
        ("[method]", "[training]\nfit = 'jobdata:fit'\nlr = 1.0\n[method]", "`fit` alone in [tra"),
    ],
)
def test_job_file(project, old, new, words):
    assert words in refused(project, project.job((old, new)))


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ("3", 'Expected `data.views` to be "images", "none", or a callable as "package.mod'),
        ("'pictures'", "callable as \"package.module:name\", got 'pictures'."),
        ("'jobviews:alike'", "got 'alike', which is not there. Did you mean 'awake'?"),
        ("'nojobviews:views'", "`data.views` to name a module that can be imported, got 'nojobv"),
        ("'jobviews:number'", "Expected `data.views` to be callable, got int."),
        ("'images'", 'Expected images (n, h, w) or (n, c, h, w) for `views` = "images", got ro'),
        ("'jobviews:awake'", "(8, 8) and type torch.float32 of the batch, got (1, 8) and torch.f"),
    ],
)
def test_views(project, views, words):
    text = "number = 3\ndef awake(inputs):\n    return [inputs, inputs[:1]]\n"
    (project.folder / "jobviews.py").write_text(text)
    job = project.job(("holdout =", f"views = {views}\nholdout ="))
    assert words in refused(project, job)
    assert words in refused(project, job, command="check")


def test_missing_job_file(project):
    err = refused(project, "no.toml")
    assert "Expected a job file at no.toml, found none. Write one with `expunge init" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jobnets:nett", "got 'nett', which is not there. Did you mean 'net'?"),
        (
            "nojobnets:net",
            "got 'nojobnets', which is not found. Install it, or check the name. The job's folder",
        ),
        ("jobnets", 'as "package.module:name"'),
        ("jobbroken:net", "importing 'jobbroken' raised ZeroDivisionError: division by zero"),
        ("jobneedy:net", "importing 'jobneedy' raised ModuleNotFoundError: No module named 'not"),
        ("jobnets:raising", "to return an nn.Module, but it raised RuntimeError: no such layer"),
        ("jobnets:nothing", "to return an nn.Module, got NoneType"),
        ("jobnets:torch", "Expected `model.factory` to be callable, got module."),
    ],
)
def test_factory(project, name, words):
    (project.folder / "jobbroken.py").write_text("1 / 0\n")
    (project.folder / "jobneedy.py").write_text("import nothing_like_this\n")
    assert words in refused(project, project.job(("jobnets:net", name)))


def test_missing_weights(project):
    err = refused(project, project.job(('"w.safetensors"', '"v.safetensors"')))
    assert "found no file. Check the path." in err


def test_state_dict_that_does_not_fit(project):
    state = project.state()
    state["extra"] = state.pop("3.bias")
    save_file(state, project.folder / "w.safetensors")
    err = refused(project, project.job())
    assert "got 1 missing (3.bias) and 1 unexpected (extra)" in err


def test_other_shapes_are_named(project):
    err = refused(project, project.job(("jobnets:net", "jobnets:other_width")))
    assert "Expected '0.weight' in w.safetensors to have shape (12, 8), got (16, 8)" in err


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_module.{k}": v for k, v in s.items()},
        lambda s: {f"model._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"net.{k}": v for k, v in s.items()} | {"criterion.weight": torch.ones(4)},
        lambda s: {k.replace("0.", "0.module."): v for k, v in s.items()},
    ],
)
def test_wrapped_names_are_taken_off_and_said(project, wrap):
    save_file(wrap(project.state()), project.folder / "w.safetensors")
    code, _, err = project.run("check", project.job())
    assert code == 0, err
    assert "w.safetensors: " in err
    assert "tensors renamed to the model's names" in err
    assert ("left out, no part of the model: criterion.weight" in err) == ("net." in err)


def test_a_name_that_does_not_fit_shows_the_nearest(project):
    state = project.state()
    state["stem.weight"] = state.pop("0.weight")
    save_file(state, project.folder / "w.safetensors")
    err = refused(project, project.job())
    assert "The nearest names: '0.weight' is missing, 'stem.weight' is there" in err
    assert "architecture" not in err


def test_lazy_layers_take_shape_by_rows_of_the_job(project):
    (project.folder / "joblazy.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyBatchNorm1d(),"
        " nn.LazyLinear(4))\n"
    )
    job = project.job(("jobnets:net", "joblazy:net"))
    code, _, err = project.run("check", job)
    assert code == 0, err
    assert project.run("unlearn", job, "--out", "run")[0] in (0, 11, 12)


def test_nan_weights(project):
    state = project.state()
    state["3.weight"][0, 0] = torch.nan
    save_file(state, project.folder / "w.safetensors")
    err = refused(project, project.job())
    assert "Expected finite weights in w.safetensors, got NaN or infinity in '3.weight'" in err


def test_damaged_weights(project):
    file = project.folder / "w.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    err = refused(project, project.job())
    assert "The file is damaged or cut short" in err


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_pickle_is_refused_with_the_cure(project, name):
    torch.save(project.state(), project.folder / name)
    err = refused(project, project.job(('"w.safetensors"', f'"{name}"')))
    assert f"Expected weights as safetensors, got {name}, a pickle" in err
    assert f"`expunge convert {name} w.safetensors`" in err


def test_labels_out_of_range(project):
    with np.load(project.folder / "holdout.npz") as archive:
        with_arrays(project, "holdout.npz", y=archive["y"] + 1)
    err = refused(project, project.job())
    assert "Expected labels of `holdout` below the model's 4 classes, got 4" in err


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("classes = []", "Expected `classes` to name at least one class, got none"),
        ("classes = [7]", "Expected rows of class 7 in `train`, got none"),
        ("classes = [0, 1, 2, 3]", "got all 320"),
        ("indices = []", "to hold at least one record, got none"),
        ("indices = [400]", "Expected `indices` between 0 and 319, got 400"),
        ("indices = [3, 3]", "got 3 twice"),
        ('ids = ["person-9999"]', "got unknown id 'person-9999'"),
        ('ids = ["person-0001", "person-0001"]', "got 'person-0001' twice"),
        ('ids = "none.txt"', "reading none.txt raised FileNotFoundError"),
        ('indices = "words.txt"', "Expected `forget.indices` to hold integers"),
    ],
)
def test_selections(project, selection, words):
    (project.folder / "words.txt").write_text("three\n")
    job = project.job(("classes = [1]", selection), ("prototype-surgery", "fine-tune"))
    assert words in refused(project, job)


def test_duplicate_ids_of_rows(project):
    (project.folder / "ids.txt").write_text("same\n" * 320)
    job = project.job(('train = "train.npz"', 'train = "train.npz"\nids = "ids.txt"'))
    assert "Expected unique ids in `train`, got duplicate id 'same'" in refused(project, job)


def test_records_are_refused_by_methods_for_classes(project):
    err = refused(project, project.job(("classes = [1]", "indices = [1]")))
    assert "Expected a method that serves records, got 'prototype-surgery'" in err
    assert "retrain or fine-tune" in err


def test_records_need_train(project):
    job = project.job(("classes = [1]", "indices = [1]"), ("train =", "forget ="))
    err = refused(project, job)
    assert "Expected `train` in [data] for a request by indices, got `forget` alone" in err


def test_holdout_that_overlaps_the_forget_set(project):
    err = refused(project, project.job(('holdout = "holdout.npz"', 'holdout = "train.npz"')))
    assert "rows are also in the forget set (more than 1 %)" in err


def test_no_linear_head(project):
    import jobnets

    save_file(jobnets.convolution_only().state_dict(), project.folder / "w.safetensors")
    err = refused(project, project.job(("jobnets:net", "jobnets:convolution_only")))
    assert "Methods that edit the head need a final nn.Linear" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jobdata:raising", "to return a Dataset, but it raised FileNotFoundError: no folder of"),
        ("jobdata:Broken", "to give row 7, but reading it raised OSError: image 7 is cut short"),
        ("jobdata:Noisy", "Switch off random augmentation"),
        ("nowhere.npz", "found none. Check the path"),
        ("jobnets.py", 'as "package.module:name" or an npz file, got'),
    ],
)
def test_data(project, name, words):
    assert words in refused(project, project.job(('"train.npz"', f'"{name}"')))


def test_rows_that_the_model_cannot_read(project):
    with np.load(project.folder / "train.npz") as archive:
        with_arrays(project, "train.npz", x=archive["x"][:, :5])
    err = refused(project, project.job(("prototype-surgery", "mask-class")))
    assert "Expected the model to run on rows of the data (a batch of (4, 5) torch.float32)" in err


def test_statistics_of_another_backbone(project):
    assert project.run("statistics", project.job(), "--out", "S.safetensors")[0] == 0
    state = project.state()
    state["0.weight"] += 0.01
    save_file(state, project.folder / "w.safetensors")
    job = project.job(
        ('holdout = "holdout.npz"', 'holdout = "holdout.npz"\nstatistics = "S.safetensors"')
    )
    assert "Expected statistics of this model's backbone" in refused(project, job)


def test_statistics_with_forget_rows_alone_need_explicit_ids(project):
    assert project.run("statistics", project.job(), "--out", "S.safetensors")[0] == 0
    with np.load(project.folder / "train.npz") as archive:
        mine = archive["y"] == 1
        rows = {"x": archive["x"][mine], "y": archive["y"][mine]}
        ids = archive["id"][mine]
    np.savez(project.folder / "one.npz", **rows)
    np.save(project.folder / "ids.npy", ids)
    bare = ('train = "train.npz"', 'forget = "one.npz"\nstatistics = "S.safetensors"')
    err = refused(project, project.job(bare))
    assert "Expected explicit `ids` where statistics are used with the forget rows alone" in err
    named = (bare[0], bare[1] + '\nids = "ids.npy"')
    assert project.run("unlearn", project.job(named), "--out", "r")[0] == 0


def test_weights_and_statistics_are_not_mixed_up(project):
    assert project.run("statistics", project.job(), "--out", "S.safetensors")[0] == 0
    err = refused(project, project.job(('"w.safetensors"', '"S.safetensors"')))
    assert "got feature statistics. They go under `statistics` in [data]" in err


def test_retrain_needs_training(project):
    err = refused(project, project.job(("prototype-surgery", "retrain")))
    assert "Expected `training` (a factory and how to fit it) for 'retrain', got none" in err


def test_initial_weights_must_hold_the_head(project):
    state = project.state("w0.safetensors")
    del state["3.weight"]
    save_file(state, project.folder / "w0.safetensors")
    job = project.job(
        ("[data]", 'initial = "w0.safetensors"\n[data]'),
        ("prototype-surgery", "naive-prototype-surgery"),
    )
    assert "Expected the initial weights to hold 3.weight" in refused(project, job)


def test_references_with_other_outputs(project):
    import jobnets

    save_file(jobnets.convolution_only().state_dict(), project.folder / "c.safetensors")
    err = refused(project, project.job(extra='[references]\nretrained = ["c.safetensors"]\n'))
    assert "Expected the tensors of c.safetensors to fit the model" in err


def test_a_folder_that_is_no_run(project):
    job = project.job(('weights = "w.safetensors"', 'run = "."'))
    assert "found no readable record.json in it" in refused(project, job)


def test_usage_errors_are_code_two(project):
    assert project.run("unlearn")[0] == 2
    assert project.run("unlearn", project.job(), "--device", "tpu")[0] == 2
    assert project.run("unlearn", project.job(), "--seed", "-3")[0] == 2
    assert project.run("forget")[0] == 2


def test_a_device_that_is_not_there(project):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    code, _, err = project.run("unlearn", project.job(), "--device", "cuda")
    assert code == 2
    assert "Expected `device` 'cuda' to be there, but this machine has none" in err


TRAINED = """
from jobnets import net
from safetensors.torch import load_file
from torch import nn

def trained(new_head=False):
    model = net()
    model.load_state_dict(load_file("w.safetensors"))
    if new_head:
        model[3] = nn.Linear(16, 4)
    return model
"""


@pytest.mark.parametrize("command", ["check", "unlearn"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [("", "own weights"), ("kwargs = {new_head = true}", "its backbone under a new head")],
)
def test_a_factory_that_gives_the_trained_model_is_no_retraining(
    project, command, arguments, words
):
    (project.folder / "jobtrained.py").write_text(TRAINED)
    job = project.job(
        ('"jobnets:net"', f'"jobtrained:trained"\n{arguments}'),
        ("prototype-surgery", "retrain"),
        extra="[training]\nepochs = 1\n",
    )
    err = refused(project, job, command=command)
    assert words in err
    assert "`from_pretrained(my model)`" in err
