"""The preset against the published construction, written out with the n×d pseudo-inverse.

Θ = (W − W₀)F⁺ (K×n); drop the forget records' columns of Θ and rows of F; W' = W₀ + Θ_r F_r.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from expunge import NaivePrototypeSurgery, forget_classes, unlearn
from expunge.methods.prototypes.solve import naive_surgery_published

K = 4


def _published(trained, start, features, stays, rcond):
    theta = (trained - start) @ np.linalg.pinv(features, rcond=rcond)
    return start + theta[:, stays] @ features[stays]


def _scene(n, d, seed, rank=None):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(n, d))
    if rank is not None:
        features = draw.normal(size=(n, rank)) @ draw.normal(size=(rank, d))
    labels = np.arange(n) % K
    return features, labels, draw.normal(size=(K, d)), draw.normal(size=(K, d))


@given(n=st.integers(40, 90), d=st.integers(2, 12), seed=st.integers(0, 999))
def test_well_conditioned(n, d, seed):
    features, labels, trained, start = _scene(n, d, seed)
    stays = labels != 1
    expected = _published(trained, start, features, stays, 1e-15)
    gram = torch.from_numpy(features.T @ features)
    part = torch.from_numpy(features[~stays].T @ features[~stays])
    got = naive_surgery_published(
        torch.from_numpy(trained), torch.from_numpy(start), gram, part, 1e-12
    )
    np.testing.assert_allclose(got, expected, atol=1e-8)


@given(d=st.integers(6, 12), rank=st.integers(2, 5), seed=st.integers(0, 999))
def test_rank_deficient_with_the_same_cut(d, rank, seed):
    # Singular values below c·(largest) are cut; here that is eigenvalues below c²·(largest).
    features, labels, trained, start = _scene(60, d, seed, rank=rank)
    stays = labels != 1
    cut = 1e-5
    expected = _published(trained, start, features, stays, cut)
    gram = torch.from_numpy(features.T @ features)
    part = torch.from_numpy(features[~stays].T @ features[~stays])
    got = naive_surgery_published(
        torch.from_numpy(trained), torch.from_numpy(start), gram, part, cut**2
    )
    np.testing.assert_allclose(got, expected, atol=1e-8)


def test_a_cut_through_the_middle_of_the_spectrum():
    draw = np.random.default_rng(0)
    left, _ = np.linalg.qr(draw.normal(size=(50, 6)))
    right, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    features = left @ np.diag([1.0, 0.5, 0.1, 3e-3, 2e-3, 1e-3]) @ right.T
    labels, trained = np.arange(50) % K, draw.normal(size=(K, 6))
    start, stays = np.zeros((K, 6)), labels != 2
    gram = torch.from_numpy(features.T @ features)
    part = torch.from_numpy(features[~stays].T @ features[~stays])
    for cut in (1e-2, 2.5e-3, 1.5e-3):
        got = naive_surgery_published(
            torch.from_numpy(trained), torch.from_numpy(start), gram, part, cut**2
        )
        expected = _published(trained, start, features, stays, cut)
        np.testing.assert_allclose(got, expected, atol=1e-8)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_through_the_door(seed):
    # A linear model is its own head, so the features are the inputs.
    features, labels, trained, start = _scene(80, 7, seed)
    model = nn.Linear(7, K).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(trained))
    task = forget_classes((torch.from_numpy(features), torch.from_numpy(labels)), {1})
    result = unlearn(
        model,
        NaivePrototypeSurgery.as_published(),
        task,
        seed=0,
        initial={"weight": torch.from_numpy(start)},
    )
    expected = _published(trained, start, features, labels != 1, 1e-15)
    np.testing.assert_allclose(result.model.weight.detach(), expected, atol=1e-8)
    assert torch.equal(result.model.bias, model.bias)
