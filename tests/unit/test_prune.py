"""PRUNE on records and classes: the laws of the patch, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import expunge
from expunge import Prune, PrunePublished, forget_indices, unlearn
from expunge.certificate import keygen, sign_run, verify
from expunge.data.views import as_rows
from expunge.errors import (
    ContractError,
    DataError,
    InputError,
    MethodError,
    ModelError,
    UnsupportedError,
)
from expunge.methods.prune.gates import gate_values
from expunge.network.heads import find_head
from expunge.network.passes import logits_of
from expunge.records import Outcome
from expunge.testing import ToyData, contract_checks, toy

CPU = torch.device("cpu")
MADE = toy("mlp")
CNN = toy("cnn")
CHOSEN = tuple(range(0, 60, 3))


def _logits(model, rows):
    return logits_of(model, rows, batch_size=64, device=CPU)


def _signed(result, folder):
    run = expunge.save_run(result, folder / "run")
    keygen(folder / "key")
    sign_run(run, folder / "key.key.pem")
    return run, folder / "key.pub.pem"


def _words(found):
    return {claim.name: claim.status for claim in found.claims}


@pytest.mark.parametrize("made", [MADE, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("spec", ["unseen", "mispredict"])
def test_retained_rows_keep_exactly_their_logits(made, spec):
    task = made.unseen(*CHOSEN)
    model = made.trained()
    result = unlearn(model, Prune(form="gated", spec=spec), task, seed=0)
    assert torch.equal(_logits(model, task.retain), _logits(result.model, task.retain))
    head = result.model.get_submodule(result.record.head)
    own = gate_values(head.gate_weight, head.gate_bias, torch.zeros(1, head.in_features))
    assert own.shape == (1, len(head.gate_bias))
    assert result.record.structure == "wraps"


def test_records_get_the_logits_of_their_targets():
    task = MADE.unseen(*CHOSEN)
    result = unlearn(MADE.trained(), Prune(form="gated"), task, seed=0)
    after = _logits(result.model, task.forget).double()
    place = {i: n for n, i in enumerate(task.forget.ids)}
    for record in result.evidence.records:
        far = (after[place[record.id]] - torch.from_numpy(record.target)).abs().max()
        assert float(far) <= record.tolerance


def test_mispredict_leads_by_the_margin():
    task = MADE.unseen(*CHOSEN)
    result = unlearn(
        MADE.trained(), Prune(form="gated", spec="mispredict", margin=0.5), task, seed=0
    )
    after = _logits(result.model, task.forget).double()
    own = after.gather(1, task.forget.labels[:, None])[:, 0]
    others = after.scatter(1, task.forget.labels[:, None], -torch.inf).amax(1)
    served = {r.id for r in result.evidence.records}
    for n, text in enumerate(task.forget.ids):
        if text in served:
            assert float(others[n] - own[n]) >= 0.5
    assert any("misses the aim" in note for note in result.record.notes)


def test_the_evidence_says_with_which_settings_targets_were_drawn():
    made = Prune(form="gated", jitter=0.25)
    evidence = unlearn(MADE.trained(), made, MADE.unseen(*CHOSEN), seed=3).evidence
    assert "+-0.25 towards" in evidence.rule
    assert (evidence.seed, evidence.method["jitter"], evidence.method["form"]) == (3, 0.25, "gated")


def test_targets_come_from_the_tune_rows_of_the_class():
    task = MADE.unseen(*CHOSEN)
    result = unlearn(MADE.trained(), Prune(form="gated", jitter=0.0), task, seed=0)
    known = {tuple(r) for r in _logits(MADE.trained(), task.holdout).double().tolist()}
    assert all(tuple(r.target.tolist()) in known for r in result.evidence.records)


def test_merged_margins_lie_near_their_targets_without_gates():
    task = MADE.unseen(0, 1)
    result = unlearn(MADE.trained(), Prune(form="merged", tolerance=0.05), task, seed=0)
    assert result.record.structure == "same"
    assert set(dict(result.model.named_parameters())) == set(
        dict(MADE.trained().named_parameters())
    )
    after = _logits(result.model, task.forget)
    place = {i: n for n, i in enumerate(task.forget.ids)}
    assert result.evidence.records
    for record in result.evidence.records:
        z = after[place[record.id]].double()
        target = torch.from_numpy(record.target)
        gap, goal = (
            v[record.label] - torch.cat([v[: record.label], v[record.label + 1 :]]).max()
            for v in (z, target)
        )
        assert abs(float(gap - goal)) <= record.tolerance


def test_auto_says_why_it_is_gated():
    result = unlearn(MADE.trained(), Prune(), MADE.unseen(*CHOSEN), seed=0)
    assert result.record.notes[0].startswith("form: gated, because more records than a quarter")


@pytest.mark.parametrize("form", ["gated", "merged"])
@pytest.mark.parametrize("made", [MADE, CNN], ids=["mlp", "cnn"])
def test_the_checker_accepts_what_was_built(made, form, tmp_path):
    task = made.unseen(0, 1)
    result = unlearn(made.trained(), Prune(form=form, tolerance=0.01), task, seed=0)
    run, key = _signed(result, tmp_path)
    found = verify(run, trust=key)
    assert found.exit_code == 0, _words(found)
    public = verify(run / "certificate.dsse.json", trust=key, role="public")
    assert public.exit_code == 0, _words(public)


def test_the_claim_of_an_mlp_starts_at_the_input():
    deep = expunge.forget_indices(*_flat(), holdout=_flat_holdout())
    model = _mlp()
    result = unlearn(model, Prune(form="gated"), deep, seed=0)
    assert [layer.op for layer in result.evidence.layers] == ["linear", "relu"]
    assert result.evidence.features == 12
    assert unlearn(CNN.trained(), Prune(form="gated"), CNN.unseen(0), seed=0).evidence.layers == ()


def _flat():
    return (MADE.train.inputs["x"], MADE.train.targets), [0, 1, 2]


def _flat_holdout():
    return MADE.holdout.inputs["x"], MADE.holdout.targets


def _mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))
    return expunge.Recipe(epochs=5, batch_size=32, lr=0.1)(
        net, _flat()[0], generator=torch.Generator().manual_seed(0), device=CPU
    )


def test_an_mlp_certificate_verifies_from_the_input(tmp_path):
    task = forget_indices(*_flat(), holdout=_flat_holdout())
    result = unlearn(_mlp(), Prune(form="gated"), task, seed=0)
    run, key = _signed(result, tmp_path)
    assert verify(run, trust=key).exit_code == 0
    payload = json.loads((run / "private/records.json").read_text())
    assert payload


class _Functional(nn.Module):
    """A plain MLP whose ReLU is no module."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.body(x).relu())


def test_a_relu_need_not_be_a_module_for_a_claim_from_the_input(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Functional()
    task = forget_indices(*_flat(), holdout=_flat_holdout())
    result = unlearn(model, Prune(form="gated"), task, seed=0)
    assert [layer.op for layer in result.evidence.layers] == ["linear", "relu"]
    run, key = _signed(result, tmp_path)
    assert verify(run, trust=key).exit_code == 0


def test_a_sequence_proves_every_record_again(tmp_path):
    first = unlearn(CNN.trained(), Prune(form="gated"), CNN.unseen(0, 1, 2), seed=0)
    run, key = _signed(first, tmp_path)
    loaded = expunge.load_run(run, factory=CNN.factory)
    second = unlearn(loaded, Prune(form="gated"), CNN.unseen(3, 4), seed=1)
    assert len(second.evidence.records) == 5
    assert [r.request for r in second.evidence.records] == [0, 0, 0, 1, 1]
    again = expunge.save_run(second, tmp_path / "second")
    sign_run(again, tmp_path / "key.key.pem")
    found = verify(again, trust=key)
    assert found.exit_code == 0, _words(found)
    assert second.evidence.previous == loaded.certificate
    assert second.evidence.base == first.evidence.base


def test_a_claim_moves_from_the_input_to_the_features_with_its_sequence(tmp_path):
    data = _flat()[0]
    first = unlearn(
        _mlp(), Prune(form="gated"), forget_indices(data, [0], holdout=_flat_holdout()), seed=0
    )
    assert first.evidence.layers
    twins = data[0].clone()
    twins[41] = twins[6]
    task = forget_indices((twins, data[1]), [6, 7], holdout=_flat_holdout())
    second = unlearn(first, Prune(form="gated"), task, seed=1)
    assert not second.evidence.layers
    assert {e.reason for e in second.evidence.entangled} == {"identical"}
    assert {r.row.shape for r in second.evidence.records} == {(16,)}
    run, key = _signed(second, tmp_path)
    found = verify(run, trust=key)
    assert found.exit_code == 0, _words(found)


def test_another_method_voids_the_certificate():
    first = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    second = unlearn(first, expunge.FineTune(epochs=1), MADE.absent(1), seed=0)
    assert second.evidence is None
    assert any("certificate of the earlier requests is void" in n for n in second.record.notes)


def test_a_class_is_gone_for_every_input():
    result = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    assert result.outcome.outcome is Outcome.DONE
    assert result.record.structure == "narrows"
    wild = 1e3 * torch.randn(500, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = result.model(wild)
    assert bool((logits[:, 3] == -torch.inf).all())
    plain = expunge.export_narrow(result.model)
    with torch.no_grad():
        assert torch.equal(plain.model(wild), logits[:, list(plain.classes)])


def test_head_methods_refuse_patched_heads():
    narrow = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    with pytest.raises(UnsupportedError, match="narrow by an earlier request"):
        unlearn(narrow, expunge.MaskClass(), MADE.absent(1), seed=0)
    gated = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    with pytest.raises(UnsupportedError, match="gated by an earlier request"):
        unlearn(gated, expunge.LeastSquaresRemoval(), MADE.absent(1), seed=0)


def test_forms_that_do_not_go_together_are_refused():
    narrow = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    with pytest.raises(UnsupportedError, match="with all its rows to forget records"):
        unlearn(narrow, Prune(), MADE.unseen(0), seed=0)
    gated = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    with pytest.raises(UnsupportedError, match="keeps its row, such as mask-class"):
        unlearn(gated, Prune(), MADE.absent(3), seed=0)
    with pytest.raises(UnsupportedError, match="earlier requests left gates"):
        unlearn(gated, Prune(form="merged"), MADE.unseen(1), seed=0)


def test_half_precision_is_refused():
    model = MADE.trained().double()
    train, holdout = (
        ToyData({"x": d.inputs["x"].double()}, d.targets) for d in (MADE.train, MADE.holdout)
    )
    with pytest.raises(UnsupportedError, match=r"head in float32 for Prune, got torch\.float64"):
        unlearn(model, Prune(), MADE.unseen(0, train=train, holdout=holdout), seed=0)


def _with_copies(copies, labels):
    x, y = MADE.train.inputs["x"].clone(), MADE.train.targets.clone()
    for copy, original in copies.items():
        x[copy] = x[original]
    for row, label in labels.items():
        y[row] = label
    return ToyData({"x": x}, y)


def test_a_record_identical_to_a_retained_one_is_entangled(tmp_path):
    train = _with_copies({10: 0}, {})
    task = MADE.unseen(0, 1, train=train)
    result = unlearn(MADE.trained(), Prune(form="gated"), task, seed=0)
    (left,) = result.evidence.entangled
    assert (left.id, left.reason, left.residual) == ("0", "identical", 0.0)
    assert {r.id for r in result.evidence.records} == {"1"}
    assert any("1 of 2 records are entangled (identical)" in n for n in result.record.notes)
    run = expunge.save_run(result, tmp_path / "run")
    (entry,) = json.loads((run / "private/left.json").read_text())
    assert entry == {"id": "0", "label": 0, "reason": "identical", "because of": ["10"]}


def test_only_entangled_records_are_an_error():
    train = _with_copies({10: 0}, {})
    with pytest.raises(MethodError, match=r"got 1 entangled ones \(identical\)"):
        unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0, train=train), seed=0)


def test_twins_in_the_forget_set_share_a_gate(tmp_path):
    train = _with_copies({5: 0}, {})
    result = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0, 5, train=train), seed=0)
    head = result.model.get_submodule(result.record.head)
    assert len(head.gate_bias) == 1
    assert len(result.evidence.records) == 2
    run, key = _signed(result, tmp_path)
    assert verify(run, trust=key).exit_code == 0


EVERY_FORM = [
    Prune(),
    Prune(form="gated"),
    Prune(form="merged"),
    Prune(spec="mispredict"),
    Prune.as_published(),
]


@pytest.mark.parametrize("method", EVERY_FORM, ids=repr)
@pytest.mark.parametrize("rows", [(0,), (0, 11)], ids=["stays", "forgotten too"])
def test_one_input_with_two_labels_is_refused_in_every_form(method, rows):
    task = MADE.unseen(*rows, train=_with_copies({11: 0}, {}))
    if isinstance(method, PrunePublished) and rows == (0,):
        unlearn(MADE.trained(), method, task, seed=0)  # it is not handed what stays
        return
    with pytest.raises(DataError, match="one label for one record, got 0 and 1 for the same input"):
        unlearn(MADE.trained(), method, task, seed=0)


def test_auto_is_gated_where_a_record_is_also_among_what_stays():
    task = MADE.unseen(0, 1, train=_with_copies({10: 0}, {}))
    result = unlearn(MADE.trained(), Prune(), task, seed=0)
    assert result.record.structure == "wraps"
    assert "form: gated, because 1 of 2 records are identical to retained rows" in (
        result.record.notes
    )
    assert {e.reason for e in result.evidence.entangled} == {"identical"}


def test_merged_claims_nothing_for_a_record_that_is_also_among_what_stays(tmp_path):
    task = MADE.unseen(0, 1, train=_with_copies({10: 0}, {}))
    result = unlearn(MADE.trained(), Prune(form="merged", tolerance=0.05), task, seed=0)
    assert [r.id for r in result.evidence.records] == ["1"]
    assert result.evidence.unmerged == ("0",)
    assert any(
        "1 of 2 records are not merged (1 identical to retained rows)" in n
        for n in result.record.notes
    )
    run, key = _signed(result, tmp_path)
    assert verify(run, trust=key).exit_code == 0


def test_merged_alone_with_copies_of_what_stays_is_an_error():
    task = MADE.unseen(0, train=_with_copies({10: 0}, {}))
    with pytest.raises(MethodError, match="got 1 that are identical to retained rows"):
        unlearn(MADE.trained(), Prune(form="merged"), task, seed=0)


def test_equal_records_have_one_target_in_the_merged_form():
    task = MADE.unseen(0, 5, train=_with_copies({5: 0}, {}))
    result = unlearn(MADE.trained(), Prune(form="merged", tolerance=0.05), task, seed=0)
    one, two = result.evidence.records
    assert np.array_equal(one.target, two.target)


def _unfinished(monkeypatch):
    import expunge.methods.prune.merged as merged

    def solve(*args, **settings):
        return dataclasses.replace(own(*args, **settings), finished=False)

    own = merged.merge
    monkeypatch.setattr(merged, "merge", solve)


def test_an_unfinished_edit_is_never_accepted(monkeypatch):
    _unfinished(monkeypatch)
    result = unlearn(MADE.trained(), Prune(tolerance=0.05), MADE.unseen(0, 1), seed=0)
    assert result.record.structure == "wraps"
    note = result.record.notes[0]
    assert note.startswith("form: gated, because in the merged form 2 of 2 records fit")
    assert note.endswith("the solver did not finish within 5 s")


def test_an_unfinished_edit_that_was_asked_for_is_an_error(monkeypatch):
    _unfinished(monkeypatch)
    method = Prune(form="merged", tolerance=0.05)
    with pytest.raises(MethodError, match=r"did not finish within 300 s\. Use .*merge_seconds"):
        unlearn(MADE.trained(), method, MADE.unseen(0, 1), seed=0)


def test_auto_says_that_forced_errors_need_gates():
    result = unlearn(MADE.trained(), Prune(spec="mispredict"), MADE.unseen(0), seed=0)
    assert "form: gated, because a forced error is offered with gates only" in result.record.notes


class _Blind(nn.Module):
    """A net that does not look at the last of its inputs."""

    def __init__(self):
        super().__init__()
        self.body = MADE.trained()

    def forward(self, x):
        return self.body(x * (torch.arange(12) < 11))


def _alike(copies):
    """Rows that differ from others in the last input alone."""
    train = _with_copies(copies, {})
    train.inputs["x"][list(copies), 11] += 1.0
    return train


def test_features_of_a_row_that_stays_are_a_hull_that_the_checker_takes(tmp_path):
    task = MADE.unseen(0, 1, train=_alike({10: 0}))
    result = unlearn(_Blind(), Prune(form="gated"), task, seed=0)
    (left,) = result.evidence.entangled
    assert (left.id, left.reason, left.weights.tolist()) == ("0", "hull", [1.0])
    assert left.names == ("10",)
    run, key = _signed(result, tmp_path)
    found = verify(run, trust=key)
    assert found.exit_code == 0, _words(found)


@pytest.mark.parametrize(
    ("train", "reason"), [(_with_copies({10: 0}, {}), "identical"), (_alike({10: 0}), "hull")]
)
def test_what_to_do_fits_the_reason(train, reason):
    words = rf"\({reason}\)\. Forget the retained rows that they equal or lie between too"
    with pytest.raises(MethodError, match=words):
        unlearn(_Blind(), Prune(form="gated"), MADE.unseen(0, train=train), seed=0)


def test_logits_too_large_for_a_claim_are_said_to_be():
    model = MADE.trained()
    with torch.no_grad():
        model.head.weight *= 1e7
    with pytest.raises(MethodError, match=r"\(rounding\)\. What .* very large logits: use retrain"):
        unlearn(model, Prune(form="gated"), MADE.unseen(0), seed=0)


class _Unsteady(nn.Module):
    """A net whose features differ in the last bits with the place of a row in its batch."""

    def __init__(self):
        super().__init__()
        trained = MADE.trained()
        self.body, self.head = trained.body, trained.head

    def forward(self, x):
        return self.head(self.body(x) * (1 + 2.0**-20 * (torch.arange(len(x)) % 2))[:, None])


def test_equal_records_share_a_gate_wherever_they_are_read(tmp_path):
    task = MADE.unseen(0, 5, 6, train=_with_copies({5: 0}, {}))
    result = unlearn(_Unsteady(), Prune(form="gated"), task, seed=0)
    assert len(result.model.head.gate_bias) == 2
    one, two, _ = result.evidence.records
    assert not np.array_equal(one.row, two.row)
    assert np.array_equal(one.target, two.target)
    run, key = _signed(result, tmp_path)
    assert verify(run, trust=key).exit_code == 0


def test_what_the_gates_tell_is_about_records_that_have_one():
    task = MADE.unseen(0, 1, train=_with_copies({10: 0}, {}))
    result = unlearn(MADE.trained(), Prune(form="gated"), task, seed=0)
    assert result.record.log["patch_membership_auc"] == (1.0,)
    assert any("records that have one (1) from tune rows" in n for n in result.record.notes)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_without_tune_rows_nothing_is_said_of_what_the_gates_tell():
    x, y = _flat_holdout()
    task = forget_indices(*_flat(), holdout=(x[:5], y[:5]))  # one row a class: all go to judge
    result = unlearn(_mlp(), Prune(form="gated", spec="mispredict"), task, seed=0)
    assert result.record.tune_count == 0
    assert not any("tell" in name or "auc" in name for name in result.record.log)
    assert not any("what the gates tell" in n for n in result.record.notes)


def test_rows_added_later_that_open_an_earlier_gate_are_refused():
    first = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    train = _with_copies({10: 0}, {})  # what was forgotten comes back under another id
    task = MADE.unseen(1, train=train)
    with pytest.raises(MethodError, match="1 rows open a gate of an earlier request"):
        unlearn(first, Prune(form="gated"), task, seed=1)


def test_a_class_after_certified_records_is_refused():
    first = unlearn(MADE.trained(), Prune(form="merged", tolerance=0.05), MADE.unseen(0, 1), seed=0)
    with pytest.raises(UnsupportedError, match="their claims would be lost"):
        unlearn(first, Prune(), MADE.absent(3), seed=0)


def test_a_certified_run_without_its_evidence_is_not_continued(tmp_path):
    first = unlearn(MADE.trained(), Prune(form="merged", tolerance=0.05), MADE.unseen(0, 1), seed=0)
    run = expunge.save_run(first, tmp_path / "run")
    (run / "features.safetensors").unlink()
    loaded = expunge.load_run(run, factory=MADE.factory)
    for task in (MADE.unseen(5), MADE.absent(3)):
        with pytest.raises(UnsupportedError, match="earlier requests"):
            unlearn(loaded, Prune(), task, seed=0)


def test_published_mode_goes_on_and_can_be_retrained():
    data = _flat()[0]

    def task(*rows):
        training = expunge.Training(
            lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)),
            expunge.Recipe(epochs=1),
        )
        return forget_indices(data, rows, holdout=_flat_holdout(), training=training)

    first = unlearn(_mlp(), Prune.as_published(), task(0, 1), seed=0)
    second = unlearn(first, Prune.as_published(), task(2), seed=0)
    assert not bool(
        (_logits(second.model, second.forgotten[0].rows).argmax(1) == torch.tensor([0, 1])).any()
    )
    with pytest.raises(UnsupportedError, match="patched on linear regions"):
        unlearn(first, Prune(form="gated"), task(3), seed=0)
    unlearn(first, expunge.Retrain(), task(3), seed=0)


class _Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 16), nn.Linear(6, 16)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(torch.cat([self.left(x[:, :6]), self.right(x[:, 6:])], dim=1).relu())


class _Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.act(self.embed(x.view(-1, 3, 4))).mean(1))


class _Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.act, self.head = nn.Linear(12, 16).bfloat16(), nn.ReLU(), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.act(self.body(x.bfloat16())).float())


@pytest.mark.parametrize("kind", [_Branches, _Tokens, _Half])
def test_other_nets_get_claims_at_the_features(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind()
    task = forget_indices(*_flat(), holdout=_flat_holdout())
    result = unlearn(model, Prune(form="gated"), task, seed=0)
    assert result.evidence.layers == ()
    assert result.evidence.features == result.model.head.in_features


class _Capped(nn.Module):
    """A plain MLP but for a cap on its features, which no module shows."""

    def __init__(self, cap):
        super().__init__()
        self.body, self.act, self.head = nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)
        self.cap = cap

    def forward(self, x):
        return self.head(self.act(self.body(x)).clamp(max=self.cap))


@pytest.mark.parametrize("met_by", ["what stays", "a record", "nobody"])
def test_a_claim_starts_at_the_input_only_where_the_net_is_its_layers_on_every_row(met_by):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Capped(torch.inf)
    (x, y), _ = _flat()
    with torch.no_grad():
        largest = model.act(model.body(x)).amax(1)
    *_, second, top = largest.argsort().tolist()
    model.cap = float(largest[[second, top]].mean()) if met_by != "nobody" else 1e3
    others = [i for i in range(len(x)) if i not in (second, top)][:2]
    chosen = [*others, second if met_by == "what stays" else top]
    assert max(others) < min(second, top)  # the first rows do not meet the cap
    task = forget_indices((x, y), chosen, holdout=_flat_holdout())
    result = unlearn(model, Prune(form="gated"), task, seed=0)
    capped = any("not what its layers give" in n for n in result.record.notes)
    assert capped == (met_by != "nobody")
    assert bool(result.evidence.layers) == (met_by == "nobody")


@dataclasses.dataclass
class _Answer:
    logits: torch.Tensor
    hidden: torch.Tensor


class _Vit(nn.Module):
    """A vision transformer as Hugging Face gives it: a class token, and `.logits` in the answer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Linear(4, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm, self.classifier = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, pixels):
        parts = self.patches(pixels.reshape(len(pixels), 3, 4))
        hidden = self.encoder(torch.cat([self.token.expand(len(parts), 1, 16), parts], dim=1))
        return _Answer(self.classifier(self.norm(hidden[:, 0])), hidden)


def test_a_vision_transformer_with_a_class_token_gets_its_certificate(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Vit()
    task = forget_indices(*_flat(), holdout=_flat_holdout())
    result = unlearn(model, Prune(form="gated"), task, seed=0)
    assert torch.equal(_logits(model, task.retain), _logits(result.model, task.retain))
    run, trust = _signed(result, tmp_path)
    assert verify(run, trust=trust).exit_code == 0
    back = expunge.load_run(run, factory=_Vit)
    assert torch.equal(_logits(back.model, task.forget), _logits(result.model, task.forget))


class _Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(12, 16), nn.Linear(16, 5)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.head(self.body(x).relu())


def test_reduced_precision_inside_the_model_is_refused():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _Cast()
    task = forget_indices(*_flat(), holdout=_flat_holdout())
    with pytest.raises(UnsupportedError, match="reduced precision"):
        unlearn(model, Prune(form="gated"), task, seed=0)


def test_a_solver_that_gives_up_is_no_witness(monkeypatch):
    from types import SimpleNamespace

    import expunge.methods.prune.separate as separate

    monkeypatch.setattr(separate, "linprog", lambda *_, **__: SimpleNamespace(x=None))
    result = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(*CHOSEN), seed=0)
    assert {e.reason for e in result.evidence.entangled} == {"rounding"}


def test_a_bound_that_says_nothing_is_refused():
    with pytest.raises(InputError, match=r"`tolerance` to be a number .* at most 0\.0625"):
        unlearn(MADE.trained(), Prune(tolerance=1.0), MADE.unseen(0), seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tolerance": 0.0}, "`tolerance` to be a number above 0"),
        ({"margin": float("nan")}, "`margin` to be a number above 0"),
        ({"jitter": -1.0}, "`jitter` to be a number from 0"),
        ({"spec": "wrong"}, '`spec` to be "auto", "unseen" or "mispredict"'),
        ({"form": "loose"}, "`form` to be"),
        ({"form": "merged", "spec": "mispredict"}, "offered for `unseen` only"),
        ({"tolerance": "a"}, "`tolerance` to be a number above 0 .*, got 'a'"),
        ({"margin": None}, "`margin` to be a number above 0, got None"),
        ({"ridge": True}, "`ridge` to be a number from 0, got True"),
        ({"nearest": 10.5}, r"`nearest` to be an integer from 1, got 10\.5"),
        ({"spec": ["unseen"]}, "`spec` to be"),
    ],
)
def test_settings_without_a_meaning_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        unlearn(MADE.trained(), Prune(**change), MADE.unseen(0), seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"share": 0.0}, "`share` to be a number above 0 and at most 1"),
        ({"share": 1.5}, r"`share` to be a number above 0 and at most 1, got 1\.5"),
        ({"clusters": 0}, "`clusters` to be an integer from 1, got 0"),
        ({"clusters": 1.5}, "`clusters` to be an integer from 1"),
        ({"rounds": 0}, "`rounds` to be an integer from 1, got 0"),
        ({"sharpness": float("inf")}, "`sharpness` to be a number above 0, got inf"),
        ({"margin": 0.0}, "`margin` to be a number above 0"),
    ],
)
def test_settings_of_the_published_form_without_a_meaning_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        unlearn(MADE.trained(), PrunePublished(**change), MADE.unseen(0), seed=0)


def test_features_that_are_not_finite_are_refused():
    class Overflowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = MADE.trained()

        def forward(self, x):
            return self.inner(x)

    x = MADE.train.inputs["x"].clone()
    x[7] = float("inf")
    train = ToyData({"x": x}, MADE.train.targets)
    with pytest.raises(DataError, match="finite"):
        unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0, train=train), seed=0)


def test_published_mode_forces_errors_and_reloads(tmp_path):
    task = forget_indices(*_flat(), holdout=_flat_holdout())
    model = _mlp()
    result = unlearn(model, Prune.as_published(), task, seed=0)
    assert result.evidence is None
    after = _logits(result.model, task.forget)
    assert not bool((after.argmax(1) == task.forget.labels).any())
    run = expunge.save_run(result, tmp_path / "run")
    assert not (run / "certificate.dsse.json").exists()
    back = expunge.load_run(
        run, factory=lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))
    )
    assert torch.equal(_logits(back.model, task.forget), after)


def test_published_mode_refuses_heads_that_other_modes_edited():
    gated = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    narrow = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    for first, name in ((gated, "GatedLinear"), (narrow, "NarrowLinear")):
        with pytest.raises(UnsupportedError, match=f"got a {name} .* Start from the original"):
            unlearn(first, Prune.as_published(), MADE.unseen(1), seed=0)


def test_published_mode_needs_no_holdout_and_no_training_data():
    assert Prune.as_published() == PrunePublished()
    for scope in ("records", "classes"):
        assert PrunePublished().needs_for(scope) == frozenset({"forget"})
    assert Prune().needs_for("classes") == frozenset({"forget", "head"})


def test_published_mode_serves_mlps_and_says_what_it_does_not_keep():
    """All other promises are checked on the plain MLP, in `tests/contract`."""
    checks = {check.name: check for check in contract_checks(PrunePublished.small())}
    served = {"cnn_served", "cnn_served_on_records"}
    assert set(PrunePublished.info.expected_failures) == {*served, "class_forgotten"}
    for name in served:
        with pytest.raises(ContractError, match=r"refuses the toy 'cnn': .* got Conv2d"):
            checks[name]()
    with pytest.raises(ContractError, match="the class is still recognised"):
        checks["class_forgotten"]()


def test_published_mode_refuses_other_networks_before_any_copy(monkeypatch):
    mapping = toy("mapping")
    convolutional, named = CNN.trained(), mapping.trained()
    monkeypatch.setattr("copy.deepcopy", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(ModelError, match="got Conv2d at 'conv'"):
        unlearn(convolutional, PrunePublished(), CNN.unseen(0), seed=0)
    with pytest.raises(UnsupportedError, match="one input tensor a row for prune-published"):
        unlearn(named, PrunePublished(), mapping.unseen(0), seed=0)


def test_statistics_survive_a_patch_of_the_head():
    made = CNN
    model = made.trained()
    rows = as_rows(made.train)
    from expunge.statistics.collect import collect_statistics

    statistics, _ = collect_statistics(
        model, find_head(model, rows.batch(torch.arange(2))[0]), rows
    )
    task = made.absent(3, statistics=statistics)
    result = unlearn(model, Prune(), task, seed=0)
    assert result.statistics is not None
    assert int(result.statistics.sums.counts[3]) == 0


def test_evidence_is_private_by_default():
    result = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0, 1), seed=0)
    again = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0, 1), seed=0)
    salts = [[r.salt for r in x.evidence.records] for x in (result, again)]
    assert salts[0] != salts[1]  # the seed does not give salts away
    assert result.record.digest_after == again.record.digest_after
    assert np.isfinite(result.evidence.retained).all()
    assert dataclasses.is_dataclass(result.evidence)


def test_gates_without_their_evidence_are_not_extended(tmp_path):
    first = unlearn(MADE.trained(), Prune(form="gated"), MADE.unseen(0), seed=0)
    run = expunge.save_run(first, tmp_path / "run")
    (run / "features.safetensors").unlink()
    loaded = expunge.load_run(run, factory=MADE.factory)
    with pytest.raises(UnsupportedError, match=r"private/ folder and its features\.safetensors"):
        unlearn(loaded, Prune(form="gated"), MADE.unseen(1), seed=0)


def test_a_narrow_head_without_evidence_narrows_without_a_certificate():
    first = unlearn(MADE.trained(), Prune(), MADE.absent(3), seed=0)
    tuned = unlearn(first, expunge.FineTune(epochs=1), MADE.absent(1), seed=0)
    again = unlearn(tuned, Prune(), MADE.absent(0), seed=0)
    assert again.evidence is None
    assert any(note.startswith("no certificate") for note in again.record.notes)
