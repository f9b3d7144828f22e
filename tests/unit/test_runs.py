"""Run folders from Python: what comes back, what is refused, and that nothing is half-written."""

import dataclasses
import errno
import json
import shutil
import stat
import tomllib

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import expunge
import expunge.storage.whole as stored
from expunge.errors import InputError, ModelError, OutputError
from expunge.network.weights import load_weights, read_weights, save_weights
from expunge.records import read_record, to_json
from expunge.runs.job import ResolvedJob
from expunge.runs.saving import save_audit
from expunge.storage.toml import to_toml
from expunge.storage.whole import new_file, new_folder


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))


def rows(n, seed, prefix):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) % 4
    x = centres[y] + torch.randn(n, 6, generator=generator)
    return {"x": x, "y": y, "id": [f"{prefix}{i}" for i in range(n)]}


TRAIN, HOLDOUT = rows(160, 1, "t"), rows(160, 2, "h")


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = net()
    return expunge.Recipe(epochs=10, batch_size=32, lr=0.1)(
        fresh, TRAIN, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )


@pytest.fixture(scope="module")
def result(trained):
    task = expunge.forget_classes(TRAIN, {1}, holdout=HOLDOUT)
    return expunge.unlearn(trained, expunge.LeastSquaresRemoval(), task, seed=4)


def test_what_is_saved_comes_back(result, tmp_path):
    path = expunge.save_run(result, tmp_path / "run")
    back = expunge.load_run(path, factory=net)
    assert back.record == result.record
    assert back.split_seed is None
    assert back.head == result.head
    assert back.original is None
    assert not back.model.training
    assert torch.equal(back.model(HOLDOUT["x"]), result.model.eval()(HOLDOUT["x"]))
    (old,), (new,) = result.forgotten, back.forgotten
    for name in ("aim", "scope", "classes", "ids", "salt"):
        assert getattr(new, name) == getattr(old, name)
    assert back.statistics.members == result.statistics.members
    assert torch.equal(back.statistics.sums.gram, result.statistics.sums.gram)
    assert back.statistics.penalty == result.statistics.penalty


def test_a_sequence_over_a_reload_equals_one_in_memory(result, tmp_path):
    path = expunge.save_run(result, tmp_path / "run")
    task = expunge.forget_classes(TRAIN, {2}, holdout=HOLDOUT)
    method = expunge.LeastSquaresRemoval()
    there = expunge.unlearn(expunge.load_run(path, factory=net), method, task, seed=9)
    here = expunge.unlearn(result, method, task, seed=9)
    assert there.record.digest_after == here.record.digest_after
    assert there.split_seed is None
    assert [sorted(r.classes) for r in there.forgotten] == [[1], [2]]
    second = expunge.save_run(there, tmp_path / "second")
    assert len(expunge.load_run(second, factory=net).forgotten) == 2


def test_default_name(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = expunge.save_run(result)
    assert path.parent.name == "runs"
    assert path.name.split("-", 1)[1].startswith("least-squares-removal-")
    assert (tmp_path / path / "record.json").exists()


def test_a_run_made_in_python_has_a_job_too(result, tmp_path):
    path = expunge.save_run(result, tmp_path / "run")
    public = tomllib.loads((path / "job.toml").read_text())
    assert public["method"] == {"name": "least-squares-removal"}
    assert public["forget"]["commitment"] == result.record.commitment
    assert "classes" not in public["forget"]
    private = tomllib.loads((path / "private" / "job.toml").read_text())
    assert private["forget"] == {"aim": "absent", "classes": [1]}


def test_salts_and_statistics_keep_no_ids_outside(result, tmp_path):
    path = expunge.save_run(result, tmp_path / "run")
    assert "members" not in load_file(path / "statistics.safetensors")
    public = b"".join(p.read_bytes() for p in path.iterdir() if p.is_file())
    for request in result.forgotten:
        assert request.salt.encode() not in public
        assert not [i for i in request.ids if f'"{i}"'.encode() in public]


def test_private_modes(result, tmp_path):
    private = expunge.save_run(result, tmp_path / "run") / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in private.iterdir()} == {0o600}


def test_without_private_it_loads_and_serves_no_further(result, tmp_path):
    path = expunge.save_run(result, tmp_path / "run")
    shutil.rmtree(path / "private")
    back = expunge.load_run(path, factory=net)
    assert (back.history_known, back.forgotten, back.split_seed) == (False, (), None)
    assert back.statistics.members is None
    task = expunge.forget_classes(TRAIN, {2}, holdout=HOLDOUT)
    with pytest.raises(InputError, match=r"without its private/ part.*Put private/ back"):
        expunge.unlearn(back, expunge.MaskClass(), task, seed=0)
    with pytest.raises(InputError, match="whose history is known to be saved"):
        expunge.save_run(back, tmp_path / "again")


def test_private_of_another_run_is_refused(result, tmp_path, trained):
    path = expunge.save_run(result, tmp_path / "run")
    task = expunge.forget_classes(TRAIN, {2}, holdout=HOLDOUT)
    other = expunge.unlearn(trained, expunge.MaskClass(), task, seed=0)
    foreign = expunge.save_run(other, tmp_path / "other")
    shutil.rmtree(path / "private")
    shutil.copytree(foreign / "private", path / "private")
    with pytest.raises(InputError, match="got the history of another"):
        expunge.load_run(path, factory=net)


def test_a_factory_of_another_architecture_is_refused_with_the_cure(trained, tmp_path):
    task = expunge.forget_classes(TRAIN, {1}, holdout=HOLDOUT)
    pruned = expunge.unlearn(trained, expunge.Prune(), task, seed=0)
    path = expunge.save_run(pruned, tmp_path / "run")
    with pytest.raises(ModelError, match="another architecture: pass the one of the run"):
        expunge.load_run(path, factory=lambda: nn.Sequential(net()))


def test_changed_weights_are_refused(result, tmp_path):
    path = expunge.save_run(result, tmp_path / "run")
    state = {k: t.clone() for k, t in load_file(path / "model.safetensors").items()}
    state["0.weight"][0, 0] += 1
    save_file(state, path / "model.safetensors")
    with pytest.raises(ModelError, match=r"to be those of the record .* The file was changed"):
        expunge.load_run(path, factory=net)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 3}, "of version 1 to 2, got 3. A newer Expunge wrote it: update"),
        ({"cost": 3}, "to be the record of a run, but reading it raised TypeError"),
        ({"outcome": {"outcome": "splendid", "reason": "", "figures": {}}}, "ValueError"),
        ({"surprise": 1}, "TypeError"),
    ],
)
def test_damaged_records_are_refused(result, tmp_path, change, words):
    path = expunge.save_run(result, tmp_path / "run")
    facts = json.loads((path / "record.json").read_text()) | change
    (path / "record.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=words):
        expunge.load_run(path, factory=net)


def test_records_survive_figures_that_are_not_finite(result):
    outcome = dataclasses.replace(result.outcome, figures={"a": float("inf"), "b": float("nan")})
    record = dataclasses.replace(result.record, outcome=outcome, log={"loss": (1.0, float("nan"))})
    back = read_record(to_json(record))
    assert back.outcome.figures["a"] == float("inf")
    assert back.log["loss"][1] != back.log["loss"][1]


def test_existing_and_unwritable_places(result, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="a place that does not exist yet"):
        expunge.save_run(result, tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder that this user may write to"):
        expunge.save_run(result, tmp_path / "file" / "run")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["save_weights", "write_private", "write_text"])
def test_interrupted_saves_leave_nothing(result, tmp_path, monkeypatch, step, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(f"expunge.runs.saving.{step}", fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        expunge.save_run(result, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_inside_safetensors_is_seen_as_one(result, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_args, **_kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("expunge.network.weights.save_file", full)
    with pytest.raises(OutputError, match="but the disk is full"):
        expunge.save_run(result, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_audits_are_added_and_never_replaced(result, tmp_path):
    task = expunge.forget_classes(TRAIN, {1}, holdout=HOLDOUT)
    path = expunge.save_run(result, tmp_path / "run")
    folder = save_audit(path, expunge.audit(result, task))
    assert folder.parent == path / "audits"
    assert json.loads((folder / "audit.json").read_text())["method"] == "least-squares-removal"
    with pytest.raises(OutputError, match="Expected a run folder"):
        save_audit(tmp_path, expunge.audit(result, task))


def test_digests_of_forget_files_stay_private(result, tmp_path):
    job = ResolvedJob(
        settings={"seed": 4, "data": {"forget": "f.npz"}, "forget": {"classes": "c.txt"}},
        files={"data.forget": "aa", "forget.classes": "bb", "model.weights": "cc"},
    )
    path = expunge.save_run(result, tmp_path / "run", job=job)
    public = tomllib.loads((path / "job.toml").read_text())
    assert public["files"] == {"model.weights": "cc"}
    assert public["data"] == {"forget": "private"}
    private = json.loads((path / "private" / "history.json").read_text())
    assert private["files"] == job.files


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def test_tied_weights_and_buffers_go_and_come_back(tmp_path):
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "w.safetensors")
    state = read_weights(tmp_path / "w.safetensors")
    assert sorted(state) == ["count", "first.weight", "second.weight"]
    load_weights(other, state, source="w")
    assert other.second.weight is other.first.weight
    assert torch.equal(other.first.weight, model.first.weight)


def test_a_dtype_that_would_lose_digits_is_refused():
    state = {k: t.double() for k, t in net().state_dict().items()}
    with pytest.raises(ModelError, match=r"to fit dtype torch.float32, got torch.float64"):
        load_weights(net(), state, source="w")
    half = {k: t.half() for k, t in net().state_dict().items()}
    assert load_weights(net(), half, source="w")[0].weight.dtype == torch.float32


def test_old_batch_norm_states_without_counters_load():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {k: t for k, t in model.state_dict().items() if not k.endswith("batches_tracked")}
    load_weights(model, state, source="w")


@pytest.mark.parametrize("number", range(2, 6))
def test_pickles_are_known_by_their_first_bytes(tmp_path, number):
    import pickle

    (tmp_path / "w.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=number))
    with pytest.raises(ModelError, match=r"a pickle\. Pickles can run code"):
        read_weights(tmp_path / "w.safetensors")


def test_a_safe_file_is_safe_whatever_its_name(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.pt")
    assert list(read_weights(tmp_path / "w.pt")) == ["a"]


def test_toml_comes_back():
    tables = {
        "seed": 3,
        "none": None,
        "model": {"kwargs": {"a b": [1, 2.5], "on": True}, "name": 'quote " \\ \n \x7f é'},
        "empty": {},
        "files": {"a.b": "c"},
        "limits": {"small": 1e-05, "large": 1e300},
    }
    back = tomllib.loads(to_toml(tables))
    assert back == {k: v for k, v in tables.items() if v is not None}


def test_new_folder_and_file_are_whole(tmp_path, monkeypatch):
    with new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "1"
    with new_file(tmp_path / "deep" / "b") as file:
        file.write_text("2")
    assert (tmp_path / "deep" / "b").read_text() == "2"
    with pytest.raises(OutputError, match="that raised"), new_file(tmp_path / "c") as file:
        raise PermissionError(errno.EACCES, "no")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "deep"]
    with pytest.raises(OutputError, match="does not exist yet"), new_folder(tmp_path / "d"):
        (tmp_path / "d").mkdir()
    assert list((tmp_path / "d").iterdir()) == []
    assert stored.utc_stamp().endswith("Z")


def test_non_persistent_buffers_must_come_back_the_same(tmp_path):
    class Random(nn.Module):
        def __init__(self, fill: float) -> None:
            super().__init__()
            self.head = nn.Linear(6, 4)
            self.register_buffer("mix", torch.full((6,), fill), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x * self.mix)

    task = expunge.forget_classes(TRAIN, {1}, holdout=HOLDOUT)
    result = expunge.unlearn(Random(1.0), expunge.MaskClass(), task, seed=0)
    path = expunge.save_run(result, tmp_path / "run")
    assert expunge.load_run(path, factory=lambda: Random(1.0)).record == result.record
    with pytest.raises(ModelError, match=r"non-persistent buffers anew \('mix'\)"):
        expunge.load_run(path, factory=lambda: Random(2.0))
