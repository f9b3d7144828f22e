"""The effect of the class methods, with their defaults, on a public model nobody here trained."""

import pytest
import torch

import expunge
from expunge.network.heads import find_head
from expunge.network.passes import logits_of
from expunge.statistics.collect import collect_statistics

pytestmark = [pytest.mark.data, pytest.mark.slow]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cifar(cifar10):
    """The public ResNet-20, training and test rows, and statistics of the training rows."""
    model, train, test = cifar10
    head = find_head(model, train.batch(torch.arange(2))[0])
    statistics, _ = collect_statistics(model, head, train)
    before = logits_of(model, test, batch_size=500, device=CPU)
    return model, train, test, statistics, before


def percent(hits: torch.Tensor) -> float:
    return 100.0 * float(hits.double().mean())


def run(cifar, method, label):
    """(forget train, forget test, others − original, others − mask) in points, whole test set."""
    model, train, test, statistics, before = cifar
    task = expunge.forget_classes(train, {label}, holdout=test, statistics=statistics)
    result = expunge.unlearn(model, method, task, seed=0)
    after = logits_of(result.model, test, batch_size=500, device=CPU)
    own = test.labels == label
    hidden = before.clone()
    hidden[:, label] = -torch.inf
    y = test.labels[~own]
    others = percent(after[~own].argmax(1) == y)
    assert result.outcome.outcome is expunge.Outcome.DONE, result.outcome.reason
    return (
        result.outcome.figures["forget_after"],
        percent(after[own].argmax(1) == label),
        others - percent(before[~own].argmax(1) == y),
        others - percent(hidden[~own].argmax(1) == y),
    )


@pytest.mark.parametrize("label", [1, 3, 5, 8])
@pytest.mark.parametrize(
    ("method", "slack"),
    [
        (expunge.LeastSquaresRemoval(), 0.2),
        (expunge.PrototypeSurgery(), 0.5),
        (expunge.NaivePrototypeSurgery(), 0.8),
    ],
    ids=lambda v: getattr(getattr(v, "info", None), "name", str(v)),
)
def test_head_methods_forget_the_class_and_keep_the_others(cifar, method, slack, label):
    train, test, _, against_mask = run(cifar, method, label)
    assert train <= 0.1
    assert test <= 0.1
    assert against_mask >= -slack


@pytest.mark.parametrize("label", [1, 5])
def test_mu_mis_forgets_the_class_and_keeps_the_others(cifar, label):
    train, test, against_original, _ = run(cifar, expunge.MuMis(), label)
    assert train <= 2.0
    assert test <= 2.0
    assert against_original >= -0.5
