"""The door `audit`: which references it takes, and the tables made of what it measured."""

import copy

import pytest
import torch

import expunge
from expunge import FineTune, MaskClass, PrototypeSurgery, Retrain, audit, unlearn
from expunge.errors import InputError, ModelError
from expunge.network.state import digest_of, state_of
from expunge.report import audit_rows, detail_rows
from expunge.testing import toy

MADE = toy("mlp")


@pytest.fixture(scope="module")
def retrained():
    return [unlearn(MADE.trained(), Retrain(), MADE.absent(1), seed=i) for i in (1, 2)]


@pytest.fixture(scope="module")
def result():
    return unlearn(MADE.trained(), PrototypeSurgery(), MADE.absent(1), seed=0)


def test_the_original_is_no_reference(result):
    with pytest.raises(ModelError, match="got the original model itself"):
        audit(result, MADE.absent(1), references=[MADE.trained()])


def test_the_edited_model_is_no_reference(result):
    with pytest.raises(ModelError, match="got the edited model itself"):
        audit(result, MADE.absent(1), references=[copy.deepcopy(result.model)])


def test_one_model_is_not_two_references(result, retrained):
    with pytest.raises(ModelError, match="reference 0, again"):
        audit(result, MADE.absent(1), references=[retrained[0], retrained[0].model])


def test_a_run_of_another_method_is_no_reference(result):
    other = unlearn(MADE.trained(), MaskClass(), MADE.absent(1), seed=0)
    with pytest.raises(ModelError, match="to be a run of `retrain`, got one of 'mask-class'"):
        audit(result, MADE.absent(1), references=[other])


def test_a_run_without_another_class_is_no_reference(result):
    other = unlearn(MADE.trained(), Retrain(), MADE.absent(2), seed=0)
    with pytest.raises(ModelError, match=r"without classes \[1\], got a run without \[2\]"):
        audit(result, MADE.absent(1), references=[other])


def test_a_model_that_knows_the_class_is_no_reference(result):
    # A plain module has no record: what it recognises gives it away.
    changed = unlearn(MADE.trained(), FineTune(epochs=1, lr=1e-4), MADE.unseen(0), seed=0).model
    with pytest.raises(ModelError, match=r"recognises 1?\d\d\.\d % of the forget records"):
        audit(result, MADE.absent(1), references=[changed])


def test_a_run_that_kept_a_record_is_no_reference():
    other = unlearn(MADE.trained(), Retrain(), MADE.unseen(4, 5), seed=1)
    asked = MADE.unseen(4, 6)
    edited = unlearn(MADE.trained(), FineTune(epochs=1), asked, seed=0)
    with pytest.raises(ModelError, match="1 of them were kept, '6' first"):
        audit(edited, asked, references=[other])


def test_audit_leaves_every_model_where_it_was(result, retrained):
    models = [result.model, *(r.model for r in retrained)]
    digests = [digest_of(state_of(m)) for m in models]
    report = audit(result, MADE.absent(1), references=retrained, device="cpu")
    assert [digest_of(state_of(m)) for m in models] == digests
    assert report.level == "C1"


def test_a_retrained_model_may_stand_among_its_own_references(retrained):
    report = audit(retrained[0], MADE.absent(1), references=retrained)
    assert report.value("gap_to_retrained", "after", "others") is not None


def test_an_empty_audit_is_refused(result):
    with pytest.raises(InputError, match="an empty audit proves nothing"):
        audit(result, MADE.absent(1), audits=())


def test_details_show_interval_gap_and_spread(result, retrained):
    report = audit(result, MADE.absent(1), references=retrained)
    heading, rows = detail_rows(report)
    assert heading == ["figure", "rows", "after", "95 % interval", "before", "gap", "spread"]
    others = next(r for r in rows if r[:2] == ["accuracy", "others"])
    value = report.value("accuracy", "after", "others")
    means = [report.value("accuracy", f"retrained-{i}", "others") for i in range(2)]
    assert others[2] == f"{value:.2f} %"
    assert float(others[5]) == pytest.approx(value - sum(means) / 2, abs=0.006)
    assert float(others[6]) == pytest.approx(abs(means[0] - means[1]), abs=0.006)
    low, high = (float(part) for part in others[3].split(" to "))
    assert low <= value <= high
    assert not any(cell.startswith("-0.00") for row in rows for cell in row)
    assert {"class 0", "class 2", "bias share"} <= {row[0] for row in rows}


def test_details_say_what_was_not_measured(result):
    _, rows = detail_rows(audit(result, MADE.absent(1)))
    reasons = {row[0]: row[2] for row in rows if row[2].startswith("not measured")}
    assert reasons["JS to retrained"] == "not measured: no retrained model was given"


def test_the_table_has_one_row_a_model(result, retrained):
    report = audit(result, MADE.absent(1), references=retrained)
    _, rows = audit_rows(report)
    assert [row[0] for row in rows] == ["before", "after", "mask-class", "retrained ×2"]


def test_a_factory_that_gives_one_module_is_not_trained_in_place():
    with torch.random.fork_rng(devices=[]):
        shared = MADE.factory()
    digest = digest_of(state_of(shared))
    training = expunge.Training(lambda: shared, MADE.recipe)
    result = unlearn(MADE.trained(), Retrain(), MADE.absent(1, training=training), seed=0)
    assert digest_of(state_of(shared)) == digest
    assert digest_of(state_of(result.model)) != digest


def test_a_holdout_of_another_shape_is_named():
    odd = (torch.zeros(8, 5), torch.arange(8) % 4)
    with pytest.raises(ModelError, match=r"rows of holdout \(a batch of \(2, 5\)"):
        unlearn(MADE.trained(), MaskClass(), MADE.absent(1, holdout=odd), seed=0)


def test_record_requests_show_retained_rows_and_both_aucs():
    result = unlearn(MADE.trained(), expunge.Prune(form="gated"), MADE.unseen(*range(12)), seed=0)
    report = audit(result, MADE.unseen(*range(12)))
    heading, rows = audit_rows(report)
    assert heading == [
        "model",
        "forget records %",
        "judge, same classes %",
        "judge %",
        "retained %",
        "loss AUC",
        "margin AUC",
    ]
    before, after = rows
    assert before[4] == after[4]  # every retained row keeps its logits
    assert {"retained", "retained-same"} <= set(report.counts)
    assert report.counts["retained"] == len(MADE.train) - 12
