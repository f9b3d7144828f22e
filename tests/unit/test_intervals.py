"""Intervals against independent references."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from expunge.functional.intervals import (
    clopper_pearson,
    mean_interval,
    paired_difference,
    rows_for_bound,
    upper_bound,
)


@given(n=st.integers(1, 400), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_clopper_pearson_is_the_exact_interval(n, share, confidence):
    hits = round(share * n)
    low, high = clopper_pearson(hits, n, confidence=confidence)
    reference = binomtest(hits, n).proportion_ci(confidence_level=confidence, method="exact")
    assert low == pytest.approx(reference.low, abs=1e-9)
    assert high == pytest.approx(reference.high, abs=1e-9)
    assert low <= hits / n <= high


def test_clopper_pearson_of_nothing_and_everything():
    assert clopper_pearson(0, 10)[0] == 0.0
    assert clopper_pearson(10, 10)[1] == 1.0


def _agresti_min(gained, lost, n, z=1.959963984540054):
    # Agresti and Min (2005): half an observation on each of the four cells.
    up, down, total = gained + 0.5, lost + 0.5, n + 2
    d = (up - down) / total
    se = math.sqrt((up + down) / total - d * d) / math.sqrt(total)
    return max(d - z * se, -1.0), min(d + z * se, 1.0)


@given(gained=st.integers(0, 40), lost=st.integers(0, 40), same=st.integers(1, 200))
def test_paired_difference_is_agresti_min(gained, lost, same):
    values = torch.tensor([1] * gained + [-1] * lost + [0] * same)
    mean, low, high = paired_difference(values)
    assert mean == pytest.approx((gained - lost) / len(values))
    assert (low, high) == pytest.approx(_agresti_min(gained, lost, len(values)), abs=1e-12)


@given(gained=st.integers(0, 40), lost=st.integers(0, 40), same=st.integers(0, 200))
def test_paired_difference_is_antisymmetric(gained, lost, same):
    values = torch.tensor([1] * gained + [-1] * lost + [0] * (same + 1))
    mean, low, high = paired_difference(values)
    minus, minus_low, minus_high = paired_difference(-values)
    assert (mean, low, high) == pytest.approx((-minus, -minus_high, -minus_low))


def test_paired_difference_keeps_a_width_where_nothing_changed():
    _, low, high = paired_difference(torch.zeros(20, dtype=torch.int64))
    assert low < 0 < high


def test_wider_confidence_wider_interval():
    values = torch.tensor([1, 0, 0, -1, -1, 0, 0, 0])
    narrow, wide = (paired_difference(values, confidence=c) for c in (0.9, 0.99))
    assert wide[1] < narrow[1] < narrow[2] < wide[2]


def test_mean_interval_by_hand():
    mean, low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    half = 1.959963984540054 * math.sqrt(14 / 3) / 2
    assert (mean, low, high) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert mean_interval(torch.tensor([4.0])) == (4.0, 4.0, 4.0)


@pytest.mark.parametrize(("hits", "n"), [(0, 29), (1, 46), (2, 61), (5, 5)])
def test_upper_bound_is_where_so_few_hits_become_unlikely(hits, n):
    bound = upper_bound(hits, n)
    if hits == n:
        assert bound == 1.0
    else:
        assert binom.cdf(hits, n, bound) == pytest.approx(0.05)


@pytest.mark.parametrize("hits", [0, 1, 2, 7])
@pytest.mark.parametrize("most", [0.02, 0.1, 0.4])
def test_rows_for_a_bound_are_the_fewest(hits, most):
    found = rows_for_bound(hits, most)
    assert upper_bound(hits, found) <= most < upper_bound(hits, found - 1)
