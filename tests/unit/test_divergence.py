"""Jensen-Shannon divergence and agreement against independent references."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from expunge.functional.divergence import agreement, jensen_shannon


def _logits(rows, classes, seed, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


@given(rows=st.integers(1, 8), classes=st.integers(2, 12), seed=st.integers(0, 999))
def test_matches_scipy(rows, classes, seed):
    a, b = _logits(rows, classes, seed), _logits(rows, classes, seed + 1000)
    expected = [
        jensenshannon(softmax(p), softmax(q), base=2) ** 2
        for p, q in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(jensen_shannon(a, b), expected, atol=1e-7)


@given(classes=st.integers(2, 12), seed=st.integers(0, 999), shift=st.floats(-50, 50))
def test_laws(classes, seed, shift):
    a, b = _logits(4, classes, seed), _logits(4, classes, seed + 1000)
    forward = jensen_shannon(a, b)
    torch.testing.assert_close(forward, jensen_shannon(b, a))
    torch.testing.assert_close(forward, jensen_shannon(a.double() + shift, b))
    assert (forward >= 0).all()
    assert (forward <= 1).all()
    torch.testing.assert_close(jensen_shannon(a, a), torch.zeros(4, dtype=torch.float64))


def test_disjoint_distributions_are_one_bit_apart():
    a = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    b = torch.tensor([[-torch.inf, 0.0, 0.0]])
    assert jensen_shannon(a, b).item() == pytest.approx(1.0)


def test_masked_logits_count_as_probability_zero():
    a = torch.tensor([[1.0, 2.0, -torch.inf]])
    b = torch.tensor([[1.0, 2.0, 0.5]])
    p, q = softmax(a[0].double().numpy()), softmax(b[0].double().numpy())
    assert jensen_shannon(a, b).item() == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert jensen_shannon(a, a).item() == 0.0


def test_agreement():
    a = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert agreement(a, a).tolist() == [True, True]
    assert agreement(a, a.flip(1)).tolist() == [False, False]


def test_not_a_number_is_not_agreement():
    nan = torch.full((2, 3), torch.nan)
    assert torch.isnan(jensen_shannon(nan, torch.zeros(2, 3))).all()
