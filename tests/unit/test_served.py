"""Records that nothing was done for: counted, not forgotten, and asked for again."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import pytest
import torch
from learnt_by_heart import LOOSE, unseen
from torch import nn

import expunge
from expunge import Prune, Recipe, forget_indices, unlearn
from expunge.errors import ContractError, MethodError, TaskError
from expunge.methods import Method
from expunge.records import MethodInfo, Outcome, Paper, read_record, to_json
from expunge.results.forgotten import commitment
from expunge.testing import toy
from expunge.unlearning.door import rehearse

MADE = toy("mlp")
LABELS = torch.randint(0, 5, (160,), generator=torch.Generator().manual_seed(3))
TRAIN = (MADE.train.inputs["x"][:160], LABELS)
"""Rows whose labels are noise: a net that knows them has learnt them by heart."""

HOLDOUT = unseen(MADE.holdout.inputs["x"], 1600)
WANTED = list(range(60))
REFUSED = [3, 10, 11, 40, 59]
WHY = "identical to retained rows"
COUNT = f"55 of 60 served, 5 refused: {WHY}"


def _net():
    return nn.Sequential(nn.Linear(12, 256), nn.ReLU(), nn.Linear(256, 5))


@cache
def _knowing(start):
    """Weights of a net that knows the rows from `start` by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _net()
    recipe = Recipe(epochs=150, batch_size=40, lr=0.2, weight_decay=0.0)
    rows = TRAIN[0][start:], TRAIN[1][start:]
    generator = torch.Generator().manual_seed(0)
    return recipe(model, rows, generator=generator, device=torch.device("cpu")).state_dict()


def _model():
    model = _net()
    model.load_state_dict(_knowing(0))
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(Method):
    """Returns the net that knows the rows from `start`, and refuses `refused` of the request."""

    start: int = 60
    refused: object

    info: ClassVar[MethodInfo] = MethodInfo(
        name="a-test",
        title="t",
        summary="s",
        paper=Paper(title="t", authors="a", venue="v"),
        needs=frozenset({"forget"}),
        aims=frozenset({"absent", "unseen"}),
        scopes=frozenset({"classes", "records"}),
        claims=("outputs",),
    )

    def apply(self, model, task, run):
        for reason, positions in self.refused.items():
            run.refuse_records(positions, reason)
        model.load_state_dict(_knowing(self.start))
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Biased(Scripted):
    """Moves every bias."""

    def apply(self, model, task, run):
        run.refuse_records(self.refused, WHY)
        with torch.no_grad():
            model.head.bias.add_(1.0)
        return model


def _served(refused=None, *, start=60, holdout=HOLDOUT, limits=LOOSE):
    task = forget_indices(TRAIN, WANTED, holdout=holdout, ids=[f"r{i}" for i in range(160)])
    method = Scripted(refused={} if refused is None else refused, start=start)
    return unlearn(_model(), method, task, seed=0, limits=limits)


def test_nothing_is_done_where_a_record_was_refused():
    result, whole = _served({WHY: REFUSED}), _served()
    assert whole.outcome.outcome is Outcome.DONE
    assert result.outcome.outcome is Outcome.INCOMPLETE
    assert result.outcome.reason.startswith(f"{COUNT} (of those served: the membership signal went")
    assert (result.record.forget_count, result.record.served_count) == (60, 55)
    assert (whole.record.forget_count, whole.record.served_count) == (60, 60)
    assert result.record.retain_count == 100
    assert result.outcome.figures["records_not_compared"] == 0


def test_membership_is_judged_on_the_records_served():
    figures = [_served(refused).outcome.figures for refused in (None, {WHY: REFUSED})]
    assert figures[0]["loss_auc_before"] != figures[1]["loss_auc_before"]
    alone = [i for n, i in enumerate(WANTED) if n not in REFUSED]
    task = forget_indices(TRAIN, alone, holdout=HOLDOUT)
    exactly = unlearn(_model(), Scripted(refused={}), task, seed=0, limits=LOOSE).outcome.figures
    assert exactly == figures[1]


def test_reasons_are_counted_apart():
    reason = _served({WHY: [3, 10], "not merged": [0]}).outcome.reason
    assert reason.startswith(f"57 of 60 served, 3 refused: 2 {WHY}, 1 not merged (")


def test_other_outcomes_keep_their_precedence():
    untouched = _served({WHY: REFUSED}, start=0)
    assert untouched.outcome.outcome is Outcome.NO_OP
    blind = _served({WHY: REFUSED}, holdout=None)
    assert blind.outcome.outcome is Outcome.UNDETERMINED
    assert blind.outcome.reason == f"there is no holdout; {COUNT}"
    limits = expunge.Limits(most_moved=0)
    wrecked = _served({WHY: REFUSED}, limits=limits)
    assert wrecked.outcome.outcome is Outcome.WRECKED
    assert "of what stays got other logits (limit: 0 %)" in wrecked.outcome.reason
    method = Scripted(refused={WHY: [0]}, start=59)
    task = forget_indices(TRAIN, list(range(80, 140)), holdout=HOLDOUT)
    still = unlearn(_model(), method, task, seed=0)
    assert still.outcome.outcome is Outcome.INEFFECTIVE


def test_refused_records_are_not_forgotten(tmp_path):
    result = _served({WHY: REFUSED})
    (request,) = result.forgotten
    left = {f"r{i}" for i in REFUSED}
    assert request.ids == tuple(f"r{i}" for i in WANTED if f"r{i}" not in left)
    assert request.ids == request.rows.ids
    assert result.refused == dict.fromkeys(sorted(left, key=lambda t: int(t[1:])), WHY)
    assert result.record.commitment == commitment(request)
    run = expunge.save_run(result, tmp_path / "run")
    assert (run / "model.safetensors").exists()
    history = json.loads((run / "private" / "history.json").read_text())
    assert set(history["requests"][0]["ids"]) == set(request.ids)
    entries = json.loads((run / "private" / "left.json").read_text())
    assert entries[0] == {"id": "r3", "reason": WHY}
    assert {entry["id"] for entry in entries} == left
    assert "r59" in (run / "private" / "job.toml").read_text()
    assert "r59" not in (run / "job.toml").read_text() + (run / "record.json").read_text()
    again = expunge.load_run(run, factory=_net)
    assert again.forgotten[0].ids == request.ids
    assert again.outcome.outcome is Outcome.INCOMPLETE


def test_they_can_be_asked_for_again_and_the_others_not():
    first = _served({WHY: REFUSED})
    ids = [f"r{i}" for i in range(160)]
    method = Scripted(refused={}, start=80)
    again = forget_indices(TRAIN, REFUSED, holdout=HOLDOUT, ids=ids)
    second = unlearn(first, method, again, seed=0)
    assert second.forgotten[1].ids == tuple(f"r{i}" for i in REFUSED)
    assert second.record.retain_count == 100
    with pytest.raises(TaskError, match="Expected records not forgotten before, got 'r0' again"):
        unlearn(first, method, forget_indices(TRAIN, [0], ids=ids), seed=0)


def test_they_stay_in_a_later_request_that_does_not_name_them():
    task = forget_indices(TRAIN, [100], holdout=HOLDOUT, ids=[f"r{i}" for i in range(160)])
    second = unlearn(_served({WHY: REFUSED}), Scripted(refused={}, start=80), task, seed=0)
    assert second.record.retain_count == 104


def test_statistics_still_hold_them():
    counted = MADE.unseen(0, 5, 10)
    statistics = unlearn(
        MADE.trained(), expunge.LeastSquaresRemoval(), MADE.absent(3), seed=0
    ).statistics
    given = dataclasses.replace(counted.given, statistics=statistics)
    result = unlearn(MADE.trained(), Biased(refused=[1]), counted.having(given), seed=0)
    assert result.statistics.covers(["5"])
    assert not result.statistics.covers(["0"])
    assert float(statistics.sums.counts.sum() - result.statistics.sums.counts.sum()) == 2


@pytest.mark.parametrize(
    ("positions", "error", "words"),
    [
        (range(60), MethodError, r"to serve some record, got all 60 refused \(identical"),
        ([60], ContractError, "by their position in `task.forget`, from 0 to 59 .* got 60"),
        ([-1], ContractError, "got -1. This is a bug in the method"),
    ],
)
def test_what_cannot_be_refused(positions, error, words):
    with pytest.raises(error, match=words):
        _served({WHY: positions})


def test_a_class_is_not_refused_by_rows():
    with pytest.raises(ContractError, match="in a request for records"):
        unlearn(MADE.trained(), Biased(refused=[0]), MADE.absent(3), seed=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving(Biased):
    """Takes records out of the request."""

    def widened(self, task):
        chosen = task.chosen.clone()
        chosen[0] = False
        return dataclasses.replace(task, chosen=chosen)


def test_no_record_may_leave_the_request():
    with pytest.raises(ContractError, match="rows that stay join the request, and none leave it"):
        unlearn(MADE.trained(), Leaving(refused=[]), MADE.unseen(0, 1), seed=0)


def test_old_records_have_no_count_of_what_was_served():
    record = _served().record
    facts = json.loads(to_json(record))
    for name in ("served_count", "certified_count", "certificate"):
        del facts[name]
    for name in ("most_moved", "most_flipped"):
        del facts["limits"][name]
    old = read_record(json.dumps(facts))
    assert (old.served_count, old.certified_count, old.certificate) == (None, None, None)
    assert old.limits == LOOSE


# --- prune ----------------------------------------------------------------------------------------


def _copied(*pairs):
    """Training rows with ids, some of them copies of others; their labels too."""
    x, y = TRAIN[0].clone(), TRAIN[1].clone()
    for copy, original in pairs:
        x[copy], y[copy] = x[original], y[original]
    return {"x": x, "y": y, "id": [f"r{i}" for i in range(160)]}


COPIES = tuple((100 + n, i) for n, i in enumerate(REFUSED))


def _pruned(train, wanted=WANTED, model=None, **settings):
    task = forget_indices(train, wanted, holdout=HOLDOUT)
    return unlearn(model or _model(), Prune(form="gated", **settings), task, seed=0)


def test_prune_is_incomplete_and_its_certificate_partial(tmp_path):
    result = _pruned(_copied(*COPIES))
    assert result.outcome.outcome is Outcome.INCOMPLETE, result.outcome.reason
    assert result.outcome.reason.startswith(COUNT)
    assert (result.record.certificate, result.record.certified_count) == ("partial", 55)
    assert len(result.forgotten[0].ids) == len(result.evidence.records) == 55
    run = expunge.save_run(result, tmp_path / "run")
    assert (run / "certificate.dsse.json").exists()
    entries = json.loads((run / "private" / "left.json").read_text())
    assert [entry["id"] for entry in entries] == [f"r{i}" for i in REFUSED]
    assert entries[0]["because of"] == ["r100"]


def test_without_copies_it_is_done_and_complete():
    result = _pruned(_copied())
    assert result.outcome.outcome is Outcome.DONE, result.outcome.reason
    assert (result.record.certificate, result.record.certified_count) == ("complete", 60)
    assert result.refused == {}


def test_a_refused_record_is_served_once_its_twin_is_gone(tmp_path):
    first = expunge.save_run(_pruned(_copied(*COPIES)), tmp_path / "first")
    loaded = expunge.load_run(first, factory=_net)
    train = _copied(*COPIES)
    stays = [i for i in range(160) if i not in dict(COPIES)]
    shrunk = {"x": train["x"][stays], "y": train["y"][stays], "id": [f"r{i}" for i in stays]}
    second = _pruned(shrunk, REFUSED, model=loaded)
    assert second.refused == {}
    assert second.forgotten[1].ids == tuple(f"r{i}" for i in REFUSED)
    assert second.record.certificate == "complete"
    assert second.evidence.earlier_without_claim == ()
    from expunge.certificate import keygen, sign_run, verify

    run = expunge.save_run(second, tmp_path / "second")
    keygen(tmp_path / "key")
    sign_run(run, tmp_path / "key.key.pem")
    assert verify(run, trust=tmp_path / "key.pub.pem").exit_code == 0


def test_a_refused_record_and_its_twin_go_together():
    first = _pruned(_copied(*COPIES))
    together = [*REFUSED, *dict(COPIES)]
    second = _pruned(_copied(*COPIES), together, model=first)
    assert second.refused == {}
    assert len(second.forgotten[1].ids) == 10
    # and one that is not asked for again stays counted as without a claim
    third = _pruned(_copied(*COPIES), [70], model=first)
    assert third.evidence.earlier_without_claim == tuple(f"r{i}" for i in REFUSED)


def test_twins_are_forgotten_with_the_request():
    result = _pruned(_copied(*COPIES), entangled="forget-twins")
    assert result.outcome.outcome is Outcome.DONE, result.outcome.reason
    assert "5 rows with the same input as a record of the request joined it" in result.record.notes
    assert set(result.forgotten[0].ids) == {f"r{i}" for i in (*WANTED, *dict(COPIES))}
    assert (result.record.forget_count, result.record.served_count) == (65, 65)
    assert result.record.retain_count == 95
    assert result.record.certificate == "complete"
    task = forget_indices(_copied(*COPIES), WANTED, holdout=HOLDOUT)
    assert expunge.audit(result, task).counts["retained"] == 95


def test_twins_may_not_take_everything():
    x = torch.cat([TRAIN[0][:2], TRAIN[0][:2]])
    task = forget_indices((x, torch.tensor([0, 1, 0, 1])), [0, 1], holdout=HOLDOUT)
    with pytest.raises(TaskError, match="Expected some rows of `train` to stay, got none"):
        unlearn(_model(), Prune(entangled="forget-twins"), task, seed=0)


def test_twins_with_another_label_are_refused():
    train = _copied(*COPIES)
    train["y"][100] = (train["y"][3] + 1) % 5
    for entangled in ("refuse", "forget-twins", "error"):
        with pytest.raises(expunge.errors.DataError, match="Expected one label for one record"):
            _pruned(train, entangled=entangled)


@pytest.mark.parametrize("door", [unlearn, rehearse])
def test_identical_records_are_an_error_before_any_edit(door, monkeypatch):
    monkeypatch.setattr(Prune, "apply", None)
    task = forget_indices(_copied(*COPIES), WANTED, holdout=HOLDOUT)
    words = r"got 5 of 60 that are identical to retained rows\. Forget these rows too"
    with pytest.raises(expunge.errors.UnsupportedError, match=words):
        door(_model(), Prune(entangled="error"), task, seed=0)


def test_geometry_is_an_error_in_the_edit():
    x = TRAIN[0].clone()
    x[100] = x[0]
    model = _model()
    with torch.no_grad():
        model[0].weight[:, 11] = 0.0
    x[100, 11] += 1.0  # the net does not see this input: the features are equal, the rows are not
    task = forget_indices((x, TRAIN[1]), [0, 1], holdout=HOLDOUT)
    words = r"got 1 of 2 that are not: 1 between retained rows in their features"
    with pytest.raises(MethodError, match=words):
        unlearn(model, Prune(form="gated", entangled="error"), task, seed=0)
    result = unlearn(model, Prune(form="gated", entangled="forget-twins"), task, seed=0)
    assert result.refused == {"0": "between retained rows in their features"}


@pytest.mark.parametrize("wanted", [[0, 1], [3, 4]], ids=["none", "one"])
def test_merged_refuses_what_did_not_fit(wanted):
    task = forget_indices(_copied(*COPIES), wanted, holdout=HOLDOUT)
    result = unlearn(_model(), Prune(form="merged", tolerance=0.05), task, seed=0)
    ids = [f"r{i}" for i in wanted]
    assert result.refused == {i: WHY for i in ids if i == "r3"} | {
        i: "not merged" for i in result.evidence.unmerged if i != "r3"
    }
    assert result.forgotten[0].ids == tuple(i for i in ids if i not in result.refused)


def test_a_dry_run_foresees_identical_records():
    task = forget_indices(_copied(*COPIES), WANTED, holdout=HOLDOUT)
    found = rehearse(_model(), Prune(), task, seed=0)
    assert found.refused == dict.fromkeys(REFUSED, WHY)
    assert rehearse(_model(), Prune(entangled="forget-twins"), task, seed=0).refused == {}
    assert rehearse(_model(), expunge.FineTune(), task, seed=0).refused == {}
    assert rehearse(MADE.trained(), Prune(), MADE.absent(3), seed=0).refused == {}


def test_a_class_has_a_complete_certificate_and_other_methods_none():
    gone = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0).record
    assert (gone.certificate, gone.certified_count) == ("complete", gone.forget_count)
    masked = unlearn(MADE.trained(), expunge.MaskClass(), MADE.absent(3), seed=0).record
    assert (masked.certificate, masked.certified_count) == ("none", 0)
    task, limits = forget_indices(_copied(), WANTED, holdout=HOLDOUT), expunge.Limits(most_moved=0)
    rejected = unlearn(_model(), Prune(form="gated"), task, seed=0, limits=limits).record
    assert rejected.outcome.outcome is Outcome.WRECKED
    assert rejected.certificate == "none"
