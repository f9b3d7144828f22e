"""The audit's level: C1 only where every reference is shown to be a model of its own."""

import copy
import json

import pytest
import torch

import expunge
from expunge import FineTune, MaskClass, Retrain, audit, unlearn
from expunge.records import to_json
from expunge.report import standing_rows
from expunge.runs.saving import save_audit
from expunge.testing import toy

MADE = toy("mlp")
TASK = MADE.absent(1)


@pytest.fixture(scope="module")
def result():
    return unlearn(MADE.trained(), FineTune(epochs=3), TASK, seed=0)


@pytest.fixture(scope="module")
def retrained():
    return unlearn(MADE.trained(), Retrain(), TASK, seed=1)


@pytest.fixture(scope="module")
def masked_copy():
    return unlearn(MADE.trained(), MaskClass(), TASK, seed=0).model


def _levels(report):
    return [one.level for one in report.standing]


def _of_figures(report):
    """Levels of the figures that were measured against the references."""
    return {
        m.level
        for m in report.measurements
        if isinstance(m, expunge.Measurement)
        and (m.audit == "divergence" or m.name in ("gap_to_retrained", "spread_of_retrained"))
    }


def test_separate_trainings_are_c1(result, retrained):
    report = audit(result, TASK, references=[retrained])
    (found,) = report.standing
    assert (report.level, _of_figures(report)) == ("C1", {"C1"})
    assert (found.reference, found.level) == ("retrained-0", "C1")
    assert abs(found.weights_cosine) < 0.3
    assert 50.0 < found.agreement <= 100.0
    assert found.steps_cosine is None
    assert found.seen_auc is None


def test_one_masked_copy_among_them_takes_the_level(result, retrained, masked_copy):
    """It is not refused: a model fine-tuned from the same backbone looks alike."""
    report = audit(result, TASK, references=[retrained, masked_copy])
    assert _levels(report) == ["C1", "unverified"]
    assert (report.level, _of_figures(report)) == ("unverified", {"unverified"})
    assert report.standing[1].weights_cosine > 0.9
    assert report.standing[1].agreement == 100.0


def test_a_run_of_retrain_that_started_from_the_model_is_shown_by_its_weights_alone():
    def fine(model, data, *, generator, device):
        model.load_state_dict(MADE.trained().state_dict())
        with torch.no_grad():
            model.head.bias[1] -= 100.0
        recipe = expunge.Recipe(epochs=3, batch_size=32, lr=0.05)
        return recipe(model, data, generator=generator, device=device)

    task = MADE.absent(1, training=expunge.Training(MADE.factory, fine))
    false = unlearn(MADE.trained(), Retrain(), task, seed=1)
    result = unlearn(MADE.trained(), MaskClass(), TASK, seed=0)
    limits = result.record.limits
    known = audit(false, TASK).value("accuracy", "after", "forget-train")
    assert known <= limits.forget_accuracy, "it passes as a reference by what it recognises"
    report = audit(result, TASK, references=[false])
    assert report.level == "unverified"


def test_initial_weights_show_what_was_added(result, retrained, masked_copy):
    start = {name: t.clone() for name, t in MADE.factory().state_dict().items()}
    report = audit(result, TASK, references=[retrained, masked_copy], initial=start)
    first, second = report.standing
    assert first.steps_cosine is not None
    assert second.steps_cosine > first.steps_cosine
    assert second.level == "unverified"


def test_without_the_original_nothing_is_shown_of_a_class(result, retrained, tmp_path):
    path = expunge.save_run(result, tmp_path / "r")
    back = expunge.load_run(path, factory=MADE.factory)
    assert audit(back, TASK, references=[retrained]).level == "unverified"
    whole = audit(back, TASK, references=[retrained], original=MADE.trained())
    assert whole.level == "C1"


def test_no_reference_is_the_holdout_alone(result):
    report = audit(result, TASK)
    assert (report.level, report.standing, report.references) == ("C4", (), ())


def test_records_are_shown_by_how_the_reference_treats_them():
    """Trained on noise until it is learned by heart: seen rows and others are told apart."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(120, 12, generator=draw), torch.arange(120) % 5
    holdout = (torch.randn(100, 12, generator=draw), torch.arange(100) % 5)
    recipe = expunge.Recipe(epochs=60, batch_size=20, lr=0.1)
    training = expunge.Training(MADE.factory, recipe)

    def trained(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = MADE.factory()
        generator = torch.Generator().manual_seed(seed)
        data = torch.utils.data.TensorDataset(x, y)
        return recipe(model, data, generator=generator, device=torch.device("cpu"))

    model, saw = trained(0), trained(1)
    task = expunge.forget_indices((x, y), range(60), holdout=holdout, training=training)
    edited = unlearn(model, FineTune(epochs=1), task, seed=0)
    never = unlearn(model, Retrain(), task, seed=2)
    report = audit(edited, task, references=[never, saw])
    first, second = report.standing
    assert (first.level, second.level, report.level) == ("C1", "unverified", "unverified")
    assert first.seen_interval[1] < 0.5
    assert second.seen_interval[0] < 0.5 < second.seen_interval[1]
    assert first.agreement is None
    assert audit(edited, task, references=[never]).level == "C1"
    alone = task.alone()
    assert audit(edited, alone, references=[never]).level == "unverified", "no retained rows"


def test_the_table_and_the_stored_audit_show_it(result, retrained, masked_copy, tmp_path):
    report = audit(result, TASK, references=[retrained, masked_copy])
    heading, rows = standing_rows(report)
    assert heading == ["reference", "cosine to the original", "agree on what stays %", "level"]
    assert [(row[0], row[-1]) for row in rows] == [
        ("retrained-0", "C1"),
        ("retrained-1", "unverified"),
    ]
    assert rows[1][2] == "100.0"
    stored = json.loads(
        (save_audit(expunge.save_run(result, tmp_path / "r"), report) / "audit.json").read_text()
    )
    assert [one["level"] for one in stored["standing"]] == ["C1", "unverified"]
    assert stored["level"] == "unverified"
    assert standing_rows(audit(result, TASK)) == (["reference"], [])
    assert "seen_interval" in to_json(report)


def test_the_table_of_a_record_request_shows_the_interval():
    task = MADE.unseen(*range(20))
    edited = unlearn(MADE.trained(), FineTune(epochs=1), task, seed=0)
    other = copy.deepcopy(MADE.trained())
    with torch.no_grad():
        other.head.bias += 0.01
    heading, rows = standing_rows(audit(edited, task, references=[other]))
    assert heading == ["reference", "cosine to the original", "AUC forget to retained", "level"]
    assert rows[0][2].count(" to ") == 1
