"""`prune` as an engineer, an auditor and a holder meet it on the command line."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

RECORDS = ("classes = [1]", 'ids = ["person-0001", "person-0002", "person-0007"]')
METHOD = ('name = "prototype-surgery"', 'name = "prune"\nform = "gated"')


def signed(project, *changes):
    job = project.job(*changes)
    code, out, err = project.run("unlearn", job, "--out", "r")
    assert out == "r\n", err
    assert project.run("keygen", "key")[0] == 0
    assert project.run("sign", "r", "--key", "key.key.pem")[0] == 0
    return job, code, err


def test_records_are_forgotten_signed_and_verified(project):
    _, code, err = signed(project, RECORDS, METHOD)
    assert code == 11  # three records: no statistic can tell
    assert "undetermined" in err
    assert "form: gated" in err
    code, out, err = project.run("verify", "r", "--trust", "key.pub.pem")
    assert (code, out.strip()) == (0, "verified"), err
    code, _, err = project.run("verify", "r")
    assert code == 11
    assert "--trust" in err


def test_public_part_names_nobody(project):
    signed(project, RECORDS, METHOD)
    for name in ("certificate.dsse.json", "record.json", "job.toml"):
        assert "person-0001" not in (project.folder / "r" / name).read_text()
    (project.folder / "r/private").rename(project.folder / "hidden")
    (project.folder / "r/features.safetensors").unlink()
    code, _, err = project.run("verify", "r", "--trust", "key.pub.pem", "--role", "public")
    assert code == 0, err
    code, _, err = project.run("verify", "r", "--trust", "key.pub.pem")
    assert code == 11
    assert "not checked" in err


def test_a_holder_checks_one_record(project):
    signed(project, RECORDS, METHOD)
    options = ("--trust", "key.pub.pem", "--role", "holder", "--record")
    kit = "r/private/holders/0.zip"
    code, _, err = project.run("verify", "r", *options, kit)
    assert code == 0, err


def test_features_are_computed_again_from_the_records(project):
    job, _, _ = signed(project, RECORDS, METHOD)
    options = ("--trust", "key.pub.pem", "--recompute")
    code, _, err = project.run("verify", "r", *options, job)
    assert code == 0, err
    assert "features from records" in err
    train = dict(np.load(project.folder / "train.npz"))
    train["x"][1] += 1.0
    np.savez(project.folder / "train.npz", **train)
    code, _, err = project.run("verify", "r", *options, job)
    assert code == 10, err


def test_a_flipped_byte_is_refused(project):
    signed(project, RECORDS, METHOD)
    weights = project.folder / "r/model.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-1] ^= 1
    weights.write_bytes(bytes(blob))
    code, out, _ = project.run("verify", "r", "--trust", "key.pub.pem")
    assert (code, out.strip()) == (10, "refuted")


def test_base_weights_are_a_claim_only_when_given(project):
    signed(project, RECORDS, METHOD)
    code, _, err = project.run("verify", "r", "--trust", "key.pub.pem", "--base", "w.safetensors")
    assert code == 0, err
    assert "base weights" in err
    code, _, _ = project.run("verify", "r", "--trust", "key.pub.pem", "--base", "w0.safetensors")
    assert code == 10


def test_a_class_is_done_and_verifies(project):
    _, code, err = signed(project, ('name = "prototype-surgery"', 'name = "prune"'))
    assert code == 0, err
    code, _, err = project.run("verify", "r", "--trust", "key.pub.pem")
    assert code == 0, err
    statement = project.folder / "r/certificate.dsse.json"
    assert json.loads(statement.read_text())["payloadType"].endswith("certificate.v1+json")


def test_a_request_after_a_run_names_its_predecessor(project):
    signed(project, RECORDS, METHOD)
    job = project.job(
        ('weights = "w.safetensors"', 'run = "r"'),
        ("classes = [1]", 'ids = ["person-0011"]'),
        METHOD,
        name="next.toml",
    )
    code, out, err = project.run("unlearn", job, "--out", "second")
    assert (code, out) == (11, "second\n"), err
    assert project.run("sign", "second", "--key", "key.key.pem")[0] == 0
    code, _, err = project.run("verify", "second", "--trust", "key.pub.pem")
    assert code == 0, err
    assert "4 hold" in err


@pytest.mark.parametrize("method", ["mask-class", "mu-mis"])
def test_other_methods_advise_prune_for_records(project, method):
    code, _, err = project.run("unlearn", project.job(RECORDS), "--method", method)
    assert code == 2
    assert "For records use prune, retrain or fine-tune" in err


def test_a_dry_run_refuses_what_the_run_would(project):
    signed(project, RECORDS, METHOD)
    changes = (
        ('weights = "w.safetensors"', 'run = "r"'),
        ('name = "prototype-surgery"', 'name = "prune"'),
    )
    code, _, err = project.run("check", project.job(*changes, name="next.toml"))
    assert code == 2
    assert "such as mask-class" in err.replace("\n", " ")


PLAIN = """
from torch import nn

def plain():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
"""


@pytest.mark.parametrize("typed", [(), ("--method", "prune")], ids=["job alone", "named again"])
def test_a_job_of_an_earlier_version_is_served_by_the_method_it_meant(project, typed):
    (project.folder / "plainnets.py").write_text(PLAIN)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    save_file(net.state_dict(), project.folder / "plain.safetensors")
    settings = 'mode = "as_published"\nclusters = 3\nshare = 0.5\nmargin = 0.25\nspec = "auto"'
    job = project.job(
        ("jobnets:net", "plainnets:plain"),
        ("w.safetensors", "plain.safetensors"),
        RECORDS,
        ('name = "prototype-surgery"', f'name = "prune"\n{settings}'),
    )
    _, out, err = project.run("unlearn", job, *typed, "--out", "r")
    assert out == "r\n", err
    record = json.loads((project.folder / "r/record.json").read_text())
    assert record["method"] == "prune-published"
    assert record["settings"] == {
        "share": 0.5, "clusters": 3, "sharpness": 1000.0, "rounds": 10, "margin": 0.25,
    }  # fmt: skip
    assert 'name = "prune-published"' in (project.folder / "r/job.toml").read_text()


def test_settings_of_the_other_mode_had_no_effect_and_have_none(project):
    method = 'name = "prune"\nmode = "patch"\nform = "gated"\nrounds = 3'
    job = project.job(RECORDS, ('name = "prototype-surgery"', method))
    _, out, err = project.run("unlearn", job, "--out", "r")
    assert out == "r\n", err
    record = json.loads((project.folder / "r/record.json").read_text())
    assert (record["method"], record["settings"]["form"]) == ("prune", "gated")
    assert not {"mode", "rounds"} & set(record["settings"])
