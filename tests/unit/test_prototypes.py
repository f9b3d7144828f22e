"""Head edits as mathematics: labels by hand, closed forms by law, the solver by its optimum."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from expunge.methods.prototypes.solve import (
    fit_head,
    mask_labels,
    naive_surgery,
    naive_surgery_published,
    paper_labels,
    solve_anchored,
)


def _normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gone(k, *classes):
    mask = torch.zeros(k, dtype=torch.bool)
    mask[list(classes)] = True
    return mask


# --- soft labels ---------------------------------------------------------------------------------


def _softmax(*values):
    exps = np.exp(np.array(values) - max(values))
    return exps / exps.sum()


def test_paper_labels_by_hand():
    # δ = 6 goes to the runners-up 3 and 1 in proportion softmax(3, 1).
    z = torch.tensor([[6.0, 3.0, 1.0, 0.0]], dtype=torch.float64)
    share = _softmax(3.0, 1.0)
    expected = [0.0, *_softmax(3.0 + 6.0 * share[0], 1.0 + 6.0 * share[1], 0.0)]
    np.testing.assert_allclose(paper_labels(z, _gone(4, 0))[0], expected, atol=1e-15)


def test_paper_labels_when_all_logits_are_negative():
    # With the true logit at 0, as released, the class would be its own runner-up here.
    z = torch.tensor([[-1.0, -2.0, -3.0, -5.0]], dtype=torch.float64)
    share = _softmax(-2.0, -3.0)
    expected = [0.0, *_softmax(-2.0 - share[0], -3.0 - share[1], -5.0)]
    np.testing.assert_allclose(paper_labels(z, _gone(4, 0))[0], expected, atol=1e-15)


def test_paper_labels_share_the_largest_forgotten_logit():
    z = torch.tensor([[2.0, 5.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    share = _softmax(1.0, 0.0)
    expected = _softmax(1.0 + 5.0 * share[0], 0.0 + 5.0 * share[1], -1.0)
    got = paper_labels(z, _gone(5, 0, 1))[0]
    np.testing.assert_allclose(got, [0.0, 0.0, *expected], atol=1e-15)


def test_paper_labels_with_one_class_left():
    assert paper_labels(torch.tensor([[4.0, 1.0]]).double(), _gone(2, 0)).tolist() == [[0.0, 1.0]]


def test_mask_labels_are_the_models_own_answer_without_the_class():
    z = torch.tensor([[9.0, 2.0, 1.0]], dtype=torch.float64)
    np.testing.assert_allclose(mask_labels(z, _gone(3, 0))[0], [0.0, *_softmax(2.0, 1.0)])


LABELS = (mask_labels, paper_labels)


@given(
    k=st.integers(3, 9), n=st.integers(1, 6), seed=st.integers(0, 999), scale=st.floats(0.1, 300)
)
@pytest.mark.parametrize("make", LABELS)
def test_labels_are_distributions_over_what_stays(make, k, n, seed, scale):
    gone = _gone(k, seed % k)
    labels = make(scale * _normal(n, k, seed=seed), gone)
    torch.testing.assert_close(labels.sum(1), torch.ones(n, dtype=torch.float64))
    assert (labels >= 0).all()
    assert not labels[:, gone].any()


@given(k=st.integers(3, 7), seed=st.integers(0, 999))
@pytest.mark.parametrize("make", LABELS)
def test_labels_commute_with_permutations(make, k, seed):
    z, gone = _normal(4, k, seed=seed), _gone(k, 0)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(make(z[:, order], gone[order]), make(z, gone)[:, order])


# --- naive surgery -------------------------------------------------------------------------------


@given(
    k=st.integers(2, 6),
    d=st.integers(1, 12),
    n=st.integers(1, 30),
    ridge=st.floats(1e-6, 10),
    seed=st.integers(0, 99),
)
def test_deleting_nothing_is_the_identity(k, d, n, ridge, seed):
    features = _normal(n, d, seed=seed).relu()  # rank-deficient where n < d
    trained, initial = _normal(k, d, seed=seed + 1), _normal(k, d, seed=seed + 2)
    nothing = torch.zeros(d, d, dtype=torch.float64)
    edited = naive_surgery(trained, initial, features.T @ features, nothing, ridge)
    assert torch.equal(edited, trained)


def test_deleting_everything_goes_back_to_the_start():
    features = _normal(60, 8, seed=0)
    gram = features.T @ features
    trained, initial = _normal(4, 8, seed=1), _normal(4, 8, seed=2)
    torch.testing.assert_close(naive_surgery(trained, initial, gram, gram, 0.0), initial)
    published = naive_surgery_published(trained, initial, gram, gram, 1e-12)
    torch.testing.assert_close(published, initial)


def test_both_forms_agree_for_full_rank_without_ridge():
    features = _normal(80, 10, seed=0)
    gram, part = features.T @ features, features[:20].T @ features[:20]
    trained, initial = _normal(5, 10, seed=1), _normal(5, 10, seed=2)
    torch.testing.assert_close(
        naive_surgery(trained, initial, gram, part, 0.0),
        naive_surgery_published(trained, initial, gram, part, 1e-12),
    )


def test_forms_differ_where_features_are_rank_deficient():
    # The published form drops what lies outside the features' span even on deleting nothing.
    features = torch.cat([_normal(40, 6, seed=0), torch.zeros(40, 2).double()], dim=1)
    gram, nothing = features.T @ features, torch.zeros(8, 8, dtype=torch.float64)
    trained, initial = _normal(3, 8, seed=1), torch.zeros(3, 8, dtype=torch.float64)
    published = naive_surgery_published(trained, initial, gram, nothing, 1e-12)
    torch.testing.assert_close(published[:, :6], trained[:, :6])
    assert not published[:, 6:].any()


# --- the convex problem --------------------------------------------------------------------------


def _problem(n=40, d=5, k=4, seed=0, strength=0.05):
    features = torch.cat([_normal(n, d, seed=seed), torch.ones(n, 1).double()], dim=1)
    labels = torch.softmax(2 * _normal(n, k, seed=seed + 1), dim=1)
    weights = torch.full((n,), 1.0 / n, dtype=torch.float64)
    anchor = _normal(k, d + 1, seed=seed + 2)
    root = _normal(30, d + 1, seed=seed + 3)
    return features, labels, weights, anchor, strength * root.T @ root


def _objective(matrix, features, labels, weights, anchor, metric):
    log_p = torch.log_softmax(features @ matrix.T, dim=1)
    fit = -(weights * (labels * log_p).sum(1)).sum()
    return fit + 0.5 * torch.trace((matrix - anchor) @ metric @ (matrix - anchor).T)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_solver_reaches_the_optimum_another_solver_finds(seed):
    problem = _problem(seed=seed)
    found, _, gradient = solve_anchored(*problem, tolerance=1e-8)
    shape = found.shape

    def value(flat):
        matrix = torch.from_numpy(flat).view(shape).requires_grad_(True)
        loss = _objective(matrix, *problem)
        (slope,) = torch.autograd.grad(loss, matrix)
        return float(loss.detach()), slope.flatten().numpy()

    other = minimize(
        value, np.zeros(found.numel()), jac=True, method="trust-constr", options={"gtol": 1e-9}
    )
    np.testing.assert_allclose(found.flatten(), other.x, atol=1e-6)
    assert gradient < 1e-8


@given(seed=st.integers(0, 99), strength=st.floats(1e-3, 1.0), k=st.integers(2, 6))
def test_gradient_by_autograd_is_zero_at_the_solution(seed, strength, k):
    problem = _problem(seed=seed, strength=strength, k=k)
    found, _, _ = solve_anchored(*problem, tolerance=1e-7)
    found.requires_grad_(True)
    (slope,) = torch.autograd.grad(_objective(found, *problem), found)
    assert float(slope.abs().max()) < 1e-5


def test_solver_is_deterministic_and_commutes_with_permutations():
    features, labels, weights, anchor, metric = _problem()
    first = solve_anchored(features, labels, weights, anchor, metric, tolerance=1e-9)
    again = solve_anchored(features, labels, weights, anchor, metric, tolerance=1e-9)
    assert torch.equal(first[0], again[0])
    order = torch.tensor([2, 0, 3, 1])
    turned = solve_anchored(
        features, labels[:, order], weights, anchor[order], metric, tolerance=1e-9
    )
    torch.testing.assert_close(turned[0], first[0][order], atol=1e-6, rtol=1e-6)


def test_a_strong_anchor_holds_and_own_labels_change_nothing():
    features, labels, weights, anchor, metric = _problem()
    held, _, _ = solve_anchored(features, labels, weights, anchor, 1e6 * metric)
    torch.testing.assert_close(held, anchor, atol=1e-4, rtol=1e-4)
    own = torch.softmax(features @ anchor.T, dim=1)
    same, steps, _ = solve_anchored(features, own, weights, anchor, metric)
    torch.testing.assert_close(same, anchor, atol=1e-6, rtol=1e-6)
    assert steps == 0


def test_fitted_head_is_softmax_regression():
    from sklearn.linear_model import LogisticRegression

    features = _normal(90, 4, seed=3)
    y = torch.arange(90) % 3
    features[:, 0] += y
    augmented = torch.cat([features, torch.ones(90, 1).double()], dim=1)
    onehot = torch.nn.functional.one_hot(y, 3).double()
    ridge = 0.02
    own = fit_head(augmented, onehot, ridge, tolerance=1e-9)
    reference = LogisticRegression(C=1.0 / (ridge * 90), tol=1e-10, max_iter=5000)
    reference.fit(features.numpy(), y.numpy())
    np.testing.assert_allclose(
        torch.softmax(augmented @ own.T, 1), reference.predict_proba(features.numpy()), atol=1e-5
    )
