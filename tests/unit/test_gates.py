"""Gates: the closed form, the linear program and the joint shifts against slow references."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from expunge.methods.prune.gates import (
    best_scores,
    directions,
    gate_values,
    joint_shifts,
    nearness,
    opened_between,
    whiten,
)
from expunge.methods.prune.separate import Hull, separate


def _rows(n=300, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + 2.0


def test_whitened_rows_have_unit_covariance():
    rows = _rows(5000)
    x = whiten(rows, 0.0)(rows)
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(6, dtype=torch.float64))
    assert float(x.mean(0).abs().max()) < 1e-10


def test_whitening_of_equal_rows_is_defined():
    white = whiten(torch.ones(4, 3), 1e-3)
    assert torch.isfinite(white(torch.zeros(2, 3))).all()


def test_direction_is_the_inverse_covariance_times_the_deviation():
    rows, z = _rows(), _rows(5, seed=1)
    u = directions(whiten(rows, 1e-3), z)
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / len(rows)
    covariance += 1e-3 * torch.trace(covariance) / 6 * torch.eye(6, dtype=torch.float64)
    for own, row in zip(u, z, strict=True):
        slow = torch.linalg.solve(covariance, row - rows.mean(0))
        slow = slow / (slow @ (row - rows.mean(0)))
        torch.testing.assert_close(own, slow)


def test_best_scores_equal_a_loop():
    rows, u = _rows(), _rows(4, seed=2)
    slow = torch.tensor([max(float(a @ b) for b in rows) for a in u], dtype=torch.float64)
    torch.testing.assert_close(best_scores(u, rows), slow)


def test_gate_is_one_and_a_half_at_the_record_and_far_below_zero_at_the_best_row():
    u = _rows(4, seed=2)
    own = torch.tensor([5.0, 6.0, 7.0, 8.0], dtype=torch.float64)
    best = own - torch.tensor([1.0, 0.5, 3.0, 1e-3], dtype=torch.float64)
    weight, bias = opened_between(u, own, best)
    scale = weight[:, 0] / u[:, 0]
    torch.testing.assert_close(scale * own + bias, torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(scale * best + bias, torch.full((4,), -2.5, dtype=torch.float64))


def test_nearness_is_zero_at_a_record():
    weight, bias = torch.tensor([[1.0, 0.0]]), torch.tensor([0.0])
    assert nearness(weight, bias, torch.tensor([[1.5, 9.0], [0.0, 0.0]])).tolist() == [0.0, -1.5]


@pytest.mark.parametrize("overlap", [0.0, 0.7])
def test_joint_shifts_move_every_record_as_asked(overlap):
    generator = torch.Generator().manual_seed(0)
    gates = torch.eye(5, dtype=torch.float64)
    gates[0, 3] = gates[4, 1] = overlap
    moves = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(gates @ joint_shifts(gates, moves).T, moves)


def test_gates_of_a_shift_are_clipped():
    values = gate_values(
        torch.tensor([[1.0]]), torch.tensor([0.0]), torch.tensor([[-1.0], [0.3], [9.0]])
    )
    torch.testing.assert_close(
        values, torch.tensor([[0.0], [0.3], [1.0]]).double(), atol=1e-7, rtol=0
    )


def _separated(white, record, rows, *, first):
    x = white(rows)
    return separate(white, white(record[None])[0], x, x.square().sum(1), first=first)


def _hidden(seed):
    """A record that the closed form does not separate, but some direction does."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    rows = rows / rows.norm(dim=1, keepdim=True)
    record = torch.tensor([0.2, 0.1, 1.0], dtype=torch.float64)
    return rows[rows @ (record / record.norm()) < 0.95], record


def test_separation_equals_the_whole_program():
    rows, record = _hidden(0)
    white = whiten(rows, 1e-3)
    u = _separated(white, record, rows, first=5)
    assert not isinstance(u, Hull)
    gaps = (white(record[None]) - white(rows)).numpy()
    whole = linprog(
        [0, 0, 0, -1.0],
        A_ub=np.hstack([-gaps, np.ones((len(gaps), 1))]),
        b_ub=np.zeros(len(gaps)),
        bounds=[(-1, 1)] * 3 + [(None, None)],
    )
    reached = float((record - rows).matmul(u).min())
    assert reached == pytest.approx(-whole.fun, rel=1e-5)


def test_a_record_inside_is_told_with_its_witness():
    rows = _rows(60, d=3)
    weights = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    record = (weights / weights.sum()) @ rows
    white = whiten(rows, 1e-3)
    found = separate(
        white, white(record[None])[0], white(rows), white(rows).square().sum(1), first=4
    )
    assert isinstance(found, Hull)
    assert float(found.weights.min()) >= 0
    assert float(found.weights.sum()) == pytest.approx(1.0)
    mean = found.weights @ rows[found.rows]
    torch.testing.assert_close(mean, record, atol=1e-6, rtol=0)


def test_separation_is_deterministic():
    rows, record = _hidden(3)
    white = whiten(rows, 1e-3)
    a, b = (_separated(white, record, rows, first=7) for _ in range(2))
    assert torch.equal(a, b)


def test_joint_shifts_equal_one_large_solve():
    generator = torch.Generator().manual_seed(3)
    gates = torch.eye(60, dtype=torch.float64)
    where = torch.randint(60, (40, 2), generator=generator)
    gates[where[:, 0], where[:, 1]] = torch.rand(40, generator=generator, dtype=torch.float64)
    gates.fill_diagonal_(1.0)
    moves = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(joint_shifts(gates, moves).T, torch.linalg.solve(gates, moves))


def test_twin_gates_share_their_shift():
    gates = torch.ones(2, 2, dtype=torch.float64)
    moves = torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(joint_shifts(gates, moves), torch.tensor([[1.0, 1.0]]).double())
