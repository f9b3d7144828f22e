"""Linear regions: rows by a slow loop, the affine map by autograd, the least redirecting shift."""

from itertools import pairwise

import pytest
import torch
from dense_regions import dense_region, support
from hypothesis import given
from hypothesis import strategies as st

from expunge.methods.prune.published.regions import redirect

SIZES = (12, 16, 8, 4)
SEEDS = st.integers(0, 999)


def _layers(sizes=SIZES, *, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(b, a, generator=g).double() / a**0.5,
            0.3 * torch.randn(b, generator=g).double(),
        )
        for a, b in pairwise(sizes)
    ]


def _point(n=12, *, seed=0):
    return torch.rand(n, generator=torch.Generator().manual_seed(1000 + seed)).double()


def _run(layers, x):
    """Logits and every hidden pre-activation."""
    hidden = []
    for weight, bias in layers[:-1]:
        hidden.append(x @ weight.T + bias)
        x = torch.relu(hidden[-1])
    weight, bias = layers[-1]
    return x @ weight.T + bias, torch.cat(hidden, dim=-1)


def _walk(found, x, *, steps=200, seed=0, low=0.0, high=1.0):
    """Points inside S and the box: hit-and-run from x."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.cat([found.rows, torch.eye(len(x)).double(), -torch.eye(len(x)).double()])
    bounds = torch.cat([found.bounds, torch.full_like(x, high), torch.full_like(x, -low)])
    points = []
    for _ in range(steps):
        direction = torch.randn(len(x), generator=g).double()
        speed, room = rows @ direction, (bounds - rows @ x).clamp_min(0.0)
        ahead, behind = room[speed > 0] / speed[speed > 0], room[speed < 0] / -speed[speed < 0]
        share = torch.rand(1, generator=g).double()
        x = x + direction * 0.999 * (share * (ahead.min() + behind.min()) - behind.min())
        points.append(x)
    return torch.stack(points)


# --- rows and the affine map ---------------------------------------------------------------------


@given(seed=SEEDS)
@pytest.mark.parametrize("sizes", [SIZES, (12, 9, 3), (12, 6, 6, 6, 5)])
def test_rows_are_those_of_a_loop_over_neurons(sizes, seed):
    layers, x = _layers(sizes, seed=seed), _point(seed=seed)
    found = dense_region(layers, x)
    for j in range(len(found.rows)):
        fresh = x.clone().requires_grad_()
        z = _run(layers, fresh)[1][j]
        (row,) = torch.autograd.grad(z, fresh)
        on = bool(z > 0)
        a, b = (-row, z - row @ x) if on else (row, row @ x - z)
        norm = a.abs().sum() if bool(a.any()) else 1.0
        assert bool(found.active[j]) == on
        torch.testing.assert_close(found.rows[j], a / norm, atol=1e-10, rtol=0)
        torch.testing.assert_close(found.bounds[j], (b / norm).detach(), atol=1e-10, rtol=0)
        torch.testing.assert_close(found.norms[j], torch.as_tensor(norm).double())


def test_defect_1_gradients_are_not_summed():
    # The released loop never zeroed x.grad: row j was the sum of rows 1..j.
    layers, x = _layers(), _point()
    found = dense_region(layers, x)
    summed = (found.rows * found.norms[:, None]).cumsum(0)
    true = torch.autograd.functional.jacobian(lambda v: _run(layers, v)[1], x)
    signed = true * torch.where(found.active, -1.0, 1.0).double()[:, None]
    torch.testing.assert_close(found.rows * found.norms[:, None], signed, atol=1e-12, rtol=0)
    live = true.abs().sum(1) > 0
    assert not torch.isclose(summed, signed).all(1)[live][1:].any()


@given(seed=SEEDS)
def test_defect_2_the_slope_is_the_jacobian(seed):
    layers, x = _layers(seed=seed), _point(seed=seed)
    found = dense_region(layers, x)
    jacobian = torch.autograd.functional.jacobian(lambda v: _run(layers, v)[0], x)
    torch.testing.assert_close(found.slope, jacobian, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.slope @ x + found.offset, _run(layers, x)[0])


@given(seed=SEEDS)
def test_rows_have_norm_one_and_x_lies_in_its_region(seed):
    x = _point(seed=seed)
    found = dense_region(_layers(seed=seed), x)
    norms = found.rows.abs().sum(1)
    assert bool(((norms - 1).abs().lt(1e-12) | (norms == 0)).all())
    assert bool((found.rows @ x <= found.bounds).all())


@given(seed=SEEDS)
def test_the_affine_map_is_the_network_on_the_region(seed):
    layers, x = _layers(seed=seed), _point(seed=seed)
    found = dense_region(layers, x)
    inside = _walk(found, x, steps=40, seed=seed)
    logits, hidden = _run(layers, inside)
    assert bool(((hidden > 0) == found.active).all())
    torch.testing.assert_close(logits, inside @ found.slope.T + found.offset, atol=1e-12, rtol=0)


def test_a_dead_layer_gives_rows_that_exclude_nothing():
    layers = _layers()
    layers[0] = (layers[0][0], torch.full((16,), -1e3).double())
    found = dense_region(layers, _point())
    assert not found.rows[16:].any()
    assert bool((found.bounds[16:] >= 0).all())
    assert bool((found.norms[16:] == 1).all())
    everywhere = torch.rand(50, 12, generator=torch.Generator().manual_seed(0)).double()
    assert bool((support(found.rows, found.bounds, 1e6, everywhere) == 1.0).all())


def test_a_unit_at_exactly_zero_counts_as_off():
    layers = [
        (torch.eye(2).double(), torch.zeros(2).double()),
        (torch.ones(2, 2).double(), torch.zeros(2).double()),
    ]
    found = dense_region(layers, torch.tensor([0.0, 1.0]).double())
    assert found.active.tolist() == [False, True]
    assert found.rows.tolist() == [[1.0, 0.0], [0.0, -1.0]]


# --- the support ---------------------------------------------------------------------------------


@given(seed=SEEDS)
def test_the_support_is_exactly_one_on_the_region(seed):
    x = _point(seed=seed)
    found = dense_region(_layers(seed=seed), x)
    inside = torch.cat([x[None], _walk(found, x, seed=seed)])
    for sharpness in (1.0, 1e3, 1e9):
        assert bool((support(found.rows, found.bounds, sharpness, inside) == 1.0).all())


@given(seed=SEEDS, sharpness=st.floats(0.1, 1e4))
def test_the_support_outside_falls_with_the_summed_violation(seed, sharpness):
    x = _point(seed=seed)
    found = dense_region(_layers(seed=seed), x)
    g = torch.Generator().manual_seed(seed)
    around = x + torch.randn(200, 12, generator=g).double() * torch.logspace(-4, 1, 200)[:, None]
    total = torch.relu(around @ found.rows.T - found.bounds).sum(1)
    got = support(found.rows, found.bounds, sharpness, around)
    assert bool((got[total * sharpness > 1 + 1e-6] == 0).all())
    torch.testing.assert_close(got, torch.relu(1 - sharpness * total), atol=1e-6, rtol=0)


# --- the shift -----------------------------------------------------------------------------------


@given(k=st.integers(2, 9), seed=SEEDS, margin=st.floats(1e-3, 10))
def test_the_redirected_label_leads_by_the_margin_and_no_less_would_do(k, seed, margin):
    logits = torch.randn(k, generator=torch.Generator().manual_seed(seed)).double() * 5
    forced = seed % k
    shift = redirect(logits, forced, margin)
    others = torch.arange(k) != forced
    lead = (logits + shift)[forced] - (logits + shift)[others].max()
    assert lead >= margin - 1e-12
    assert not shift[others].any()
    assert shift[forced] == 0 or lead <= margin + 1e-12


def test_defect_5_a_tie_is_not_enough():
    # With q_u = 0 all three logits could be equal, and argmax would return label 0 again.
    logits = torch.tensor([2.0, 2.0, 2.0]).double()
    shifted = logits + redirect(logits, 2, 0.1)
    assert int(shifted.argmax()) == 2
    assert shifted[2] - shifted[:2].max() >= 0.1 - 1e-12


@pytest.mark.parametrize("k", [2, 3, 10, 50])
def test_defect_6_no_matrix_is_completed_or_inverted(k):
    # P = rows e_j − e_t has rank k − 1 and no inverse; the shift solves P(ℓ + d) ≤ −m for any t.
    logits = torch.randn(k, generator=torch.Generator().manual_seed(k)).double()
    for forced in range(k):
        others = torch.arange(k) != forced
        p = torch.eye(k).double()[others]
        p[:, forced] -= 1.0
        shift = redirect(logits, forced, 0.1)
        assert int(torch.linalg.matrix_rank(p)) == k - 1
        assert bool((p @ (logits + shift) <= -0.1 + 1e-12).all())
