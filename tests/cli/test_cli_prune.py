"""`prune` as an engineer, an auditor and a holder meet it on the command line."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import expunge

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


# --- certificate and outcome are two answers ------------------------------------------------------

GATED_ERROR = 'name = "prune"\nform = "gated"\nentangled = "error"'
GATED_TWINS = 'name = "prune"\nform = "gated"\nentangled = "forget-twins"'


def _copy(project, copy=101, original=1):
    """A row of the training data becomes the same input as another of its class."""
    train = dict(np.load(project.folder / "train.npz"))
    train["x"][copy] = train["x"][original]
    assert train["y"][copy] == train["y"][original]
    np.savez(project.folder / "train.npz", **train)


STATES = {
    "done and complete": ((('name = "prototype-surgery"', 'name = "prune"'),), False, (0, 0, 0)),
    "done and none": ((), False, (0, 11, 11)),
    "undetermined and complete": ((RECORDS, METHOD), False, (11, 0, 11)),
    "undetermined and partial": ((RECORDS, METHOD), True, (11, 14, 11)),
    "ineffective and none": (
        (('name = "prototype-surgery"', 'name = "fine-tune"\nepochs = 1'),),
        False,
        (12, 12, 12),
    ),
    "wrecked and none": (
        (('name = "prototype-surgery"', 'name = "fine-tune"\nlr = 1000.0\nepochs = 1'),),
        False,
        (13, 13, 13),
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_exit_codes_for_what_is_required(project, state):
    changes, copied, codes = STATES[state]
    if copied:
        _copy(project)
    job = project.job(*changes)
    outcome, certificate = state.split(" and ")
    for required, code in zip(("outcome", "certificate", "both"), codes, strict=True):
        got, out, err = project.run("unlearn", job, "--require", required, "--json")
        facts = json.loads(out)
        assert (got, facts["exit_code"]) == (code, code), err
        assert (facts["outcome"], facts["certificate"]) == (outcome, certificate)
        assert f" certificate: {certificate}" in err
    assert project.run("unlearn", job)[0] == codes[0]
    assert project.run("unlearn", job, "--require", "luck")[0] == 2


WIDE = """
from torch import nn

def wide():
    return nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 4))
"""


def _by_heart(project):
    """A net that has learnt noise by heart, so that 60 records can be told; five have twins."""
    (project.folder / "widenets.py").write_text(WIDE)
    draw = np.random.default_rng(1)
    for name, count in (("train", 200), ("holdout", 2000)):
        rows = dict(np.load(project.folder / f"{name}.npz"))
        places = np.arange(count) % len(rows["y"])
        rows = {key: value[places] for key, value in rows.items()}
        if name == "holdout":  # more unseen rows of the same kind
            rows["x"] += draw.normal(0, 0.3, rows["x"].shape).astype(rows["x"].dtype)
            rows.pop("id", None)
        rows["y"] = draw.integers(0, 4, count)
        if name == "train":
            rows["x"][100:105], rows["y"][100:105] = rows["x"][:5], rows["y"][:5]
        np.savez(project.folder / f"{name}.npz", **rows)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 4))
    train = dict(np.load(project.folder / "train.npz"))
    model = expunge.Recipe(epochs=150, batch_size=40, lr=0.2, weight_decay=0.0)(
        fresh, train, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )
    save_file(model.state_dict(), project.folder / "wide.safetensors")
    return (
        ("jobnets:net", "widenets:wide"),
        ("w.safetensors", "wide.safetensors"),
        ("classes = [1]", f"indices = {list(range(60))}"),
    )


def test_an_incomplete_run_is_code_14_whatever_is_required(project):
    changes = _by_heart(project)
    job = project.job(*changes, METHOD)
    code, out, err = project.run("unlearn", job, "--out", "r", "--json")
    facts = json.loads(out)
    assert (code, facts["outcome"]) == (14, "incomplete"), err
    assert (facts["served_count"], facts["certified_count"], facts["forget_count"]) == (55, 55, 60)
    assert "incomplete: 55 of 60 served, 5 refused: identical to retained rows (of those" in err
    assert "certificate: partial, 55 of 60 records next: forget the rows that r/private/left" in err
    assert (project.folder / "r/model.safetensors").exists()
    for required in ("certificate", "both"):
        assert project.run("unlearn", job, "--require", required)[0] == 14
    assert "5 of 60 records are identical to retained rows: they" in project.run("check", job)[2]
    twins = project.job(*changes, ('name = "prototype-surgery"', GATED_TWINS), name="twins.toml")
    assert project.run("unlearn", twins, "--require", "both")[0] == 0


def test_every_outcome_with_every_certificate_has_a_code():
    from types import SimpleNamespace

    from expunge.cli.unlearn import Required, _exit_code
    from expunge.records import Outcome

    def codes(outcome, certificate):
        record = SimpleNamespace(
            outcome=SimpleNamespace(outcome=Outcome(outcome)), certificate=certificate
        )
        return tuple(_exit_code(record, Required(r)) for r in ("outcome", "certificate", "both"))

    assert codes("done", "complete") == (0, 0, 0)
    assert codes("done", "partial") == (0, 14, 14)
    assert codes("done", "none") == (0, 11, 11)
    assert codes("incomplete", "partial") == (14, 14, 14)
    assert codes("incomplete", "none") == (14, 14, 14)
    assert codes("undetermined", "complete") == (11, 0, 11)
    assert codes("undetermined", "partial") == (11, 14, 11)
    assert codes("undetermined", "none") == (11, 11, 11)
    for outcome, code in (("no-op", 12), ("ineffective", 12), ("wrecked", 13)):
        assert codes(outcome, "none") == (code, code, code)


def test_the_certificate_is_the_last_line_but_the_advice(project):
    _copy(project)
    _, _, err = project.run("unlearn", project.job(RECORDS, METHOD), "--out", "r")
    assert "2 of 3 served, 1 refused: identical to retained rows" in err
    assert "certificate: partial, 2 of 3 records next: " in err
    record = json.loads((project.folder / "r/record.json").read_text())
    assert (record["forget_count"], record["served_count"]) == (3, 2)
    assert (record["certificate"], record["certified_count"]) == ("partial", 2)
    (left,) = json.loads((project.folder / "r/private/left.json").read_text())
    assert (left["id"], left["because of"]) == ("person-0001", ["person-0101"])
    history = json.loads((project.folder / "r/private/history.json").read_text())
    assert history["requests"][0]["ids"] == ["person-0002", "person-0007"]


def test_a_partial_certificate_verifies_also_from_the_records(project):
    _copy(project)
    job, _, _ = signed(project, RECORDS, METHOD)
    code, out, err = project.run("verify", "r", "--trust", "key.pub.pem", "--recompute", job)
    assert (code, out.strip()) == (0, "verified"), err


def test_twins_are_forgotten_too(project):
    _copy(project)
    job = project.job(RECORDS, ('name = "prototype-surgery"', GATED_TWINS))
    code, _, err = project.run("check", job)
    assert code == 0
    assert "4 rows matched, 1 of them rows with the same input as a record" in err
    _, _, err = project.run("unlearn", job, "--out", "r")
    assert "note: 1 rows with the same input as a record of the request joined it" in err
    assert "certificate: complete, 4 of 4 records" in err
    history = json.loads((project.folder / "r/private/history.json").read_text())
    assert "person-0101" in history["requests"][0]["ids"]


@pytest.mark.parametrize("command", ["check", "unlearn"])
def test_entangled_records_can_be_an_error(project, command):
    _copy(project)
    job = project.job(RECORDS, ('name = "prototype-surgery"', GATED_ERROR))
    code, _, err = project.run(command, job)
    assert code == 2
    assert "got 1 of 3 that are identical to retained rows" in err
    assert not (project.folder / "runs").exists()


def test_check_says_how_many_records_are_identical_to_rows_that_stay(project):
    job = project.job(RECORDS, METHOD)
    code, out, err = project.run("check", job, "--json")
    assert (code, json.loads(out)["refused_count"]) == (0, 0)
    assert "refused" not in err
    _copy(project)
    code, out, err = project.run("check", job, "--json")
    facts = json.loads(out)
    assert (code, facts["refused_count"]) == (0, 1)
    assert facts["refused_reasons"] == ["identical to retained rows"]
    assert "1 of 3 records is identical to retained rows: it would be refused" in err


def test_side_effects_and_loosened_limits_are_on_the_terminal(project):
    _, out, err = project.run("unlearn", project.job(), "--json")
    assert "side effects on judge rows share limit got other logits" in err
    assert f"changed class {json.loads(out)['figures']['others_flipped']:.2f} %" in err
    assert "(limits: " not in err
    limits = "[limits]\nmost_moved = 50.0\nmean_drop = 3.0\n"
    code, out, err = project.run("unlearn", project.job(extra=limits), "--json")
    figures = json.loads(out)["figures"]
    assert {"others_moved", "others_flipped"} <= set(figures)
    assert code == (13 if figures["others_moved"] > 50 else 0)
    assert "(limits: mean_drop 3 instead of 2, most_moved 50 instead of 100)" in err
    assert "50 %" in err


def _repeated(project, count):
    """The holdout gets training rows of a class that stays."""
    train, holdout = (dict(np.load(project.folder / f"{n}.npz")) for n in ("train", "holdout"))
    own = np.flatnonzero(train["y"] == 0)[:count]
    more = {key: np.concatenate([holdout[key], train[key][own]]) for key in ("x", "y", "id")}
    np.savez(project.folder / "holdout.npz", **more)


def test_repeats_in_the_holdout_are_an_error_unless_expected(project):
    _repeated(project, 20)
    for command in ("check", "unlearn"):
        code, _, err = project.run(command, project.job())
        assert code == 2
        assert "20 of 660 of its rows are also among the training rows that stay" in err
    expected = project.job(
        ('holdout = "holdout.npz"', 'holdout = "holdout.npz"\nrepeats = "expected"')
    )
    code, out, err = project.run("check", expected, "--json")
    assert (code, json.loads(out)["repeats_count"]) == (0, 20)
    assert "(20 dropped: also among the training rows that stay)" in err
    code, out, err = project.run("unlearn", expected, "--json")
    assert (code, json.loads(out)["repeats_count"]) == (0, 20), err
    assert "note: 20 holdout rows are also among the training rows that stay" in err
    stored = tomllib.loads((Path(json.loads(out)["run"]) / "job.toml").read_text())
    assert stored["data"]["repeats"] == "expected"


def test_repeats_have_two_words_in_a_job(project):
    job = project.job(('holdout = "holdout.npz"', 'holdout = "holdout.npz"\nrepeats = "some"'))
    code, _, err = project.run("check", job)
    assert code == 2
    assert """Expected `data.repeats` to be "error" or "expected", got 'some'.""" in err


def test_claims_are_said_to_be_a_ceiling_that_nobody_has_measured(project):
    _, out, err = project.run("unlearn", project.job(), "--json")
    facts = json.loads(out)
    assert facts["ceiling"] == ["outputs"]
    assert set(facts["verdicts"].items()) == {
        (claim, "not measured") for claim in ("outputs", "features", "file")
    }
    assert "claims: at most outputs; not measured" in err


def test_twins_are_told_by_check_and_by_a_run(project):
    _copy(project)
    request = ("[forget]\nclasses = [1]", "[forget]\nindices = [1, 5, 9]")
    fine = ('name = "prototype-surgery"', 'name = "fine-tune"')
    job = project.job(request, fine)
    _, out, err = project.run("check", job, "--json")
    assert json.loads(out)["twins_count"] == 1
    assert "twins 1 of 3 records stay in train under another id" in err
    _, out, err = project.run("unlearn", job, "--json")
    assert json.loads(out)["twins_count"] == 1
    assert "note: 1 forget records stay in the training data under another id" in err
