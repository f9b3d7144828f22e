"""Target logits: drawn as the rows that were never seen, errors included."""

import pytest
import torch

from expunge.errors import TaskError
from expunge.methods.prune.targets import draw_targets, forced_errors


def _tune(n=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    logits = torch.randn(n, 3, generator=g) + 2 * torch.nn.functional.one_hot(labels, 3)
    return logits, labels


def _draw(labels, seed=0, jitter=0.5):
    g = torch.Generator().manual_seed(seed)
    return draw_targets(labels, *_tune(), jitter=jitter, generator=g)


def test_without_jitter_targets_are_rows_of_the_class_each_once():
    logits, labels = _tune()
    wanted = torch.zeros(int((labels == 0).sum()), dtype=torch.int64)
    targets = _draw(wanted, jitter=0.0)
    rows = {tuple(r) for r in logits[labels == 0].double().tolist()}
    assert {tuple(t) for t in targets.tolist()} == rows


def test_jitter_moves_at_most_half_way_to_a_near_row():
    logits, labels = _tune()
    pool = logits[labels == 1].double()
    still, moved = (_draw(torch.ones(100, dtype=torch.int64), jitter=j) for j in (0.0, 0.5))
    step = (moved - still).norm(dim=1)
    fifth = torch.cdist(still, pool).topk(6, largest=False).values[:, -1]
    assert bool((step <= 0.5 * fifth + 1e-9).all())
    assert bool((step > 0).all())


def test_accuracy_of_targets_matches_the_tune_rows():
    logits, labels = _tune()
    wanted = torch.arange(1200) % 3
    share = float((_draw(wanted).argmax(1) == wanted).double().mean())
    tune = float((logits.argmax(1) == labels).double().mean())
    assert share == pytest.approx(tune, abs=0.03)


def test_same_seed_same_targets():
    wanted = torch.arange(30) % 3
    assert torch.equal(_draw(wanted, 4), _draw(wanted, 4))
    assert not torch.equal(_draw(wanted, 4), _draw(wanted, 5))


def test_a_class_without_tune_rows_is_named():
    with pytest.raises(TaskError, match="holdout rows of class 7"):
        _draw(torch.tensor([7]))


def test_one_tune_row_serves_without_jitter():
    g = torch.Generator().manual_seed(0)
    row = torch.tensor([[1.0, 2.0]])
    found = draw_targets(torch.tensor([0, 0]), row, torch.tensor([0]), jitter=0.5, generator=g)
    assert found.tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_forced_errors_have_the_lead_at_least_norm():
    logits, labels = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([0, 0])
    found = forced_errors(logits, labels, 0.5)
    assert found.tolist() == [[1.75, 2.25, 0.0], [0.0, 2.0, 0.0]]
