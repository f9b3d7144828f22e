"""Each row once: what passes through the network in one command, counted by the network itself.

A command is `unlearn` and then `audit`. Needed are the forget and the judge rows, before and after,
and what a method's page states beyond; the bar is 1.1 times that, and 128 rows for looks at the
data.
"""

import re

import pytest
import torch
from torch import nn

import expunge
from expunge.data.demo import digits
from expunge.models import DigitsNet, Mlp
from expunge.network.heads import find_head
from expunge.statistics.collect import collect_statistics, collect_sums

SEEN = [0]


class Counting(nn.Module):
    """A net that counts the rows it is given, in all of its copies together."""

    def __init__(self):
        super().__init__()
        self.net = DigitsNet()

    def forward(self, x):
        SEEN[0] += len(x)
        return self.net(x)


RECIPE = expunge.Recipe(epochs=2, batch_size=64, lr=0.1)


class CountingMlp(Counting):
    """A plain MLP that counts with it: every method serves one."""

    def __init__(self):
        super().__init__()
        self.net = Mlp((64, 32, 10))


def _trained(factory):
    train, holdout = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RECIPE(
            factory(),
            train,
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
        )
    return model, train, holdout, expunge.Training(factory, RECIPE)


@pytest.fixture(scope="module")
def scene():
    return _trained(Counting)


@pytest.fixture(scope="module")
def mlp_scene():
    return _trained(CountingMlp)


def _counted(scene, method, task):
    """Rows that passed in one command, and the result."""
    SEEN[0] = 0
    result = expunge.unlearn(scene[0], method, task, seed=0)
    expunge.audit(result, task)
    return SEEN[0], result


def _class_task(scene):
    _, train, holdout, training = scene
    return expunge.forget_classes(train, {3}, holdout=holdout, training=training)


def _record_task(scene):
    _, train, holdout, training = scene
    return expunge.forget_indices(train, range(0, 1000, 10), holdout=holdout, training=training)


def _sizes(task, result):
    forget, stays = len(task.forget), len(task.retain)
    return forget, stays, result.record.tune_count, result.record.judge_count


CLASS = {
    "retrain": (expunge.Retrain(), lambda f, r, t, log: RECIPE.epochs * r),
    "fine-tune": (expunge.FineTune(epochs=2), lambda f, r, t, log: 2 * r),
    "mask-class": (expunge.MaskClass(), lambda f, r, t, log: 0),
    "naive-prototype-surgery": (expunge.NaivePrototypeSurgery(), lambda f, r, t, log: f + r),
    "prototype-surgery": (
        expunge.PrototypeSurgery(tolerance=1e-3),
        lambda f, r, t, log: f + r + f,
    ),
    "prototype-surgery, anchor retain": (
        expunge.PrototypeSurgery(tolerance=1e-2, anchor="retain"),
        lambda f, r, t, log: f + r + f + r,
    ),
    "least-squares-removal": (expunge.LeastSquaresRemoval(), lambda f, r, t, log: f + r),
    "mu-mis": (
        expunge.MuMis(most_steps=10, batch_size=32, panel=50),
        lambda f, r, t, log: 10 * 32 + len(log["panel_forget_accuracy"]) * (50 + t),
    ),
    "prune": (expunge.Prune(), lambda f, r, t, log: 0),
}
RECORDS = {
    "retrain": (expunge.Retrain(), lambda f, r, t, log: RECIPE.epochs * r),
    "fine-tune": (expunge.FineTune(epochs=2), lambda f, r, t, log: 2 * r),
    "prune": (expunge.Prune(form="gated"), lambda f, r, t, log: f + r + t),
}


def _check(scene, task, method, beyond, retained):
    # `retained` twice, before and after, is the audit's own reading. PRUNE has read what stays with
    # the given weights already (r among its rows): this one reading the audit does not reuse.
    rows, result = _counted(scene, method, task)
    forget, stays, tune, judge = _sizes(task, result)
    copies = 2 * (forget + judge) if task.scope == "records" else 0  # one noisy copy of each row
    needed = 2 * (forget + judge) + copies + 2 * retained
    needed += beyond(forget, stays, tune, result.record.log)
    assert rows >= needed, "fewer rows than the page states: the formula here is wrong"
    assert rows <= 1.1 * needed + 128, f"{rows} rows passed where {needed} suffice"


@pytest.mark.parametrize("name", CLASS)
def test_a_class_request_reads_each_row_once(scene, name):
    _check(scene, _class_task(scene), *CLASS[name], retained=0)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_request_reads_each_row_once(scene, name):
    task = _record_task(scene)
    _check(scene, task, *RECORDS[name], retained=len(task.retain))


def test_the_figures_of_the_issue_that_asked_for_this(scene):
    """124 forget, 1,074 retained, 302 judge rows: 1,832 and 3,164 rows passed before."""
    task = _class_task(scene)
    rows, result = _counted(scene, expunge.MaskClass(), task)
    assert (len(task.forget), len(task.retain), result.record.judge_count) == (124, 1074, 302)
    assert 852 <= rows <= 852 + 32
    rows, _ = _counted(scene, expunge.LeastSquaresRemoval(), task)
    assert 2050 <= rows <= 2050 + 32


@pytest.mark.parametrize("cls", expunge.METHODS, ids=lambda c: c.info.name)
def test_every_method_counts_the_rows_that_it_reads(mlp_scene, cls):
    """Of methods that stand in no table above too: the bar is what the record says was touched."""
    scope = "classes" if "classes" in cls.info.scopes else "records"
    task = (_class_task if scope == "classes" else _record_task)(mlp_scene)
    method = cls.small()
    rows, result = _counted(mlp_scene, method, task)
    forget, stays, _, judge = _sizes(task, result)
    needed = 2 * (forget + judge) + result.record.cost.samples_touched
    needed += 2 * stays + 2 * (forget + judge) if scope == "records" else 0
    needs = method.needs_for(scope)
    needed += forget + stays if "statistics" in needs else 0
    needed += (RECIPE.epochs - 1) * stays if "training" in needs else 0  # `fit` counts for itself
    assert rows <= 1.1 * needed + 128, (
        f"{rows} rows passed where {needed} are accounted for: say `run.touched(n)` for what "
        "passes outside of `run.logits`, `run.features` and `run.batches`"
    )


def test_a_model_that_changed_since_is_read_again(scene):
    task = _class_task(scene)
    result = expunge.unlearn(scene[0], expunge.MaskClass(), task, seed=0)
    first = expunge.audit(result, task)
    with torch.no_grad():
        result.model.net.head.bias[3] += 1000.0
    SEEN[0] = 0
    second = expunge.audit(result, task)
    assert SEEN[0] >= 426, "the edited model was not read again"
    assert first.value("accuracy", "after", "forget-train") == 0.0
    assert second.value("accuracy", "after", "forget-train") == 100.0


def _given_statistics(scene, task):
    model = scene[0]
    head = find_head(model, task.forget.batch(torch.arange(2))[0])
    statistics, _ = collect_statistics(model, head, task.rows)
    return expunge.forget_classes(scene[1], {3}, holdout=scene[2], statistics=statistics)


@pytest.mark.parametrize(
    "method", [expunge.MaskClass(), expunge.Prune()], ids=lambda m: m.info.name
)
def test_statistics_are_carried_on_without_another_pass(scene, method):
    task = _given_statistics(scene, _class_task(scene))
    rows, result = _counted(scene, method, task)
    assert 852 <= rows <= 852 + 32
    if method.info.structure == "same":
        assert result.statistics is not None
        head = find_head(scene[0], task.forget.batch(torch.arange(2))[0])
        sums = collect_sums(scene[0], head, task.forget, mean=result.statistics.mean)
        expected = task.statistics.without(sums, task.forget.ids)
        torch.testing.assert_close(result.statistics.sums.gram, expected.sums.gram)
        torch.testing.assert_close(result.statistics.sums.class_sums, expected.sums.class_sums)
        assert torch.equal(result.statistics.sums.counts, expected.sums.counts)
        assert result.statistics.members == expected.members


def test_a_sequence_reads_the_rows_of_each_request_once_a_command(scene):
    """The second request judges the first again: its rows too, before and after."""
    train, holdout = scene[1], scene[2]
    first = expunge.unlearn(scene[0], expunge.LeastSquaresRemoval(), _class_task(scene), seed=0)
    assert first.statistics is not None
    task = expunge.forget_classes(train, {5}, holdout=holdout)
    SEEN[0] = 0
    second = expunge.unlearn(first, expunge.MaskClass(), task, seed=0)
    assert second.statistics is not None
    earlier, forget = len(first.forgotten[0].ids), len(task.forget)
    needed = 2 * (forget + second.record.judge_count + earlier)
    assert needed <= SEEN[0] <= needed + 32


def test_another_model_of_equal_weights_is_read_anew(scene):
    """Equal weights, another `forward`: the audit measures the model it is given."""

    class Turned(Counting):
        def forward(self, x):
            return super().forward(x).roll(1, dims=1)

    task = _class_task(scene)
    result = expunge.unlearn(scene[0], expunge.MaskClass(), task, seed=0)
    turned = Turned()
    turned.load_state_dict(scene[0].state_dict())
    SEEN[0] = 0
    report = expunge.audit(result, task, original=turned)
    assert SEEN[0] == 426, "the model that was given is another one, and was not read"
    assert report.value("accuracy", "before", "others") < 20.0
    assert expunge.audit(result, task).value("accuracy", "before", "others") > 80.0
    SEEN[0] = 0
    expunge.audit(result, task, original=scene[0])
    assert SEEN[0] == 0


@pytest.mark.parametrize("subject", ["before", "after"])
def test_a_model_with_hooks_added_since_is_read_again(scene, subject):
    task = _class_task(scene)
    result = expunge.unlearn(scene[0], expunge.MaskClass(), task, seed=0)
    model = result.original if subject == "before" else result.model
    handle = model.register_forward_hook(lambda module, inputs, z: z.roll(1, dims=1))
    try:
        SEEN[0] = 0
        report = expunge.audit(result, task)
        assert SEEN[0] == 426
        assert report.value("accuracy", subject, "others") < 20.0
    finally:
        handle.remove()
    SEEN[0] = 0
    assert expunge.audit(result, task).value("accuracy", subject, "others") > 80.0
    assert SEEN[0] == 0


def test_another_request_is_read_anew(scene):
    result = expunge.unlearn(scene[0], expunge.MaskClass(), _class_task(scene), seed=0)
    same = expunge.audit(result, _class_task(scene))  # an equal request, but not the same rows
    SEEN[0] = 0
    expunge.audit(result, _class_task(scene))
    assert SEEN[0] == 852
    assert same.counts["forget-train"] == 124


def test_what_is_reused_is_what_a_fresh_reading_gives(scene):
    task = _class_task(scene)
    result = expunge.unlearn(scene[0], expunge.PrototypeSurgery(tolerance=1e-3), task, seed=0)
    reused = expunge.audit(result, task).measurements
    assert reused == expunge.audit(result, _class_task(scene)).measurements


def test_prune_as_published_reads_what_its_page_states(mlp_scene):
    model, train, holdout, _ = mlp_scene
    task = expunge.forget_classes(train, {3}, holdout=holdout)
    method = expunge.Prune.as_published()
    SEEN[0] = 0
    result = expunge.unlearn(model, method, task, seed=0)
    expunge.audit(result, task)
    rounds = int(re.search(r"after (\d+) rounds", " ".join(result.record.notes)).group(1))
    forget, judge = result.record.forget_count, result.record.judge_count
    needed = 2 * (forget + judge) + forget * (2 + 1 + rounds)
    assert needed <= SEEN[0] <= 1.1 * needed + 128
    assert result.record.cost.samples_touched == forget * (3 + rounds)
