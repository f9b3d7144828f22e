"""Membership scores and AUCs against independent references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from expunge.functional.membership import (
    auc,
    class_matched_auc,
    losses,
    margins,
    movement,
    null_half_width,
)


def test_losses_and_margins_by_hand():
    logits = torch.tensor([[1.0, 3.0, 0.0], [2.0, -1.0, 2.0]])
    labels = torch.tensor([1, 0])
    total = [math.log(sum(math.exp(v) for v in row)) for row in logits.tolist()]
    assert losses(logits, labels).tolist() == pytest.approx([total[0] - 3.0, total[1] - 2.0])
    assert margins(logits, labels).tolist() == [2.0, 0.0]


def test_margin_orders_rows_otherwise_than_the_loss():
    # the same loss, spread over one rival or over three
    logits = torch.tensor([[2.0, 0.0, -30.0, -30.0], [2.0, *[-math.log(3.0)] * 3]])
    labels = torch.tensor([0, 0])
    first, second = losses(logits, labels).tolist()
    assert first == pytest.approx(second)
    assert margins(logits, labels).tolist() == pytest.approx([2.0, 2.0 + math.log(3.0)])


def test_margin_of_certain_rows_stays_apart():
    # In float32 both probabilities round to one; the margin still tells them apart.
    sure = torch.tensor([[40.0, 0.0], [60.0, 0.0]])
    first, second = margins(sure, torch.tensor([0, 0])).tolist()
    assert (first, second) == pytest.approx((40.0, 60.0))


scores = st.lists(st.integers(-5, 5), min_size=1, max_size=25)


@given(inside=scores, outside=scores)
def test_auc_is_sklearns_with_ties(inside, outside):
    a, b = torch.tensor(inside).double(), torch.tensor(outside).double()
    truth = [1] * len(inside) + [0] * len(outside)
    assert auc(a, b) == pytest.approx(roc_auc_score(truth, inside + outside))
    assert auc(a, b) == pytest.approx(1.0 - auc(b, a))


def test_class_matched_auc_is_the_weighted_mean_within_classes():
    generator = torch.Generator().manual_seed(3)
    inside, outside = torch.randn(30, generator=generator), torch.randn(40, generator=generator)
    of_in, of_out = torch.arange(30) % 2, torch.arange(40) % 3
    value, low, high, used = class_matched_auc(inside, of_in, outside, of_out)
    by_class = [auc(inside[of_in == c], outside[of_out == c]) for c in (0, 1)]
    assert value == pytest.approx(sum(by_class) / 2)
    assert used == 30
    assert low < value < high


def test_class_difficulty_alone_gives_no_signal():
    # Class 1 scores higher everywhere and has most members: only matching removes the artefact.
    inside, of_in = torch.tensor([0.0, 10, 10, 10]), torch.tensor([0, 1, 1, 1])
    outside, of_out = torch.tensor([0.0, 0, 0, 10]), torch.tensor([0, 0, 0, 1])
    assert auc(inside, outside) > 0.6
    assert class_matched_auc(inside, of_in, outside, of_out)[0] == pytest.approx(0.5)


def test_classes_without_outsiders_are_left_out():
    inside, labels = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 7])
    value, _, _, used = class_matched_auc(inside, labels, torch.tensor([0.0]), torch.tensor([0]))
    assert (value, used) == (1.0, 2)
    empty = class_matched_auc(inside, labels, torch.tensor([0.0]), torch.tensor([4]))
    assert empty[3] == 0
    assert math.isnan(empty[0])


def _newcombe(value, m, n, z=1.959963984540054):
    """Every a on a fine grid that the score test does not reject, for one class."""
    more = (m + n) / 2 - 1
    grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
    spread = grid * (1 - grid) * (1 + more * (1 - grid) / (2 - grid) + more * grid / (1 + grid))
    held = grid[np.abs(value - grid) <= z * np.sqrt(spread / (m * n))]
    return held.min(), held.max()


def _delong(inside, outside, z=1.959963984540054):
    """The logit interval on DeLong's variance, by the double loop of its definition."""
    psi = [[(x > y) + 0.5 * (x == y) for y in outside] for x in inside]
    a = np.mean(psi)
    s10, s01 = np.var(np.mean(psi, axis=1), ddof=1), np.var(np.mean(psi, axis=0), ddof=1)
    half = z * math.sqrt(s10 / len(inside) + s01 / len(outside)) / (a * (1 - a))
    middle = math.log(a / (1 - a))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def test_interval_spans_the_score_and_the_placement_interval():
    inside, outside = [3.0, 4, 5, 6, 1, 4], [0.0, 2, 2.5, 3.5, 4]
    zero = torch.zeros(6, dtype=torch.int64)
    value, low, high, used = class_matched_auc(
        torch.tensor(inside), zero, torch.tensor(outside), zero[:5]
    )
    score, logit = _newcombe(value, 6, 5), _delong(inside, outside)
    assert low == pytest.approx(min(score[0], logit[0]), abs=1e-5)
    assert high == pytest.approx(max(score[1], logit[1]), abs=1e-5)
    assert used == 6


def _drawn(kind, value, m, n, rng):
    """Members and outsiders of one class, (draws, m) and (draws, n), with this AUC."""
    if kind == "normal":
        return rng.normal(norm.ppf(value) * 2**0.5, 1, m), rng.normal(0, 1, n)
    if kind == "uneven":  # members spread three times as wide
        return rng.normal(norm.ppf(value) * 10**0.5, 3, m), rng.normal(0, 1, n)
    if kind == "some":  # a share of the members stands out, the rest does not
        return rng.normal(0, 1, m) + 100 * (rng.random(m) < 2 * value - 1), rng.normal(0, 1, n)
    return rng.exponential(value / (1 - value), m), rng.exponential(1, n)


@pytest.mark.parametrize("kind", ["normal", "uneven", "some", "skew"])
@pytest.mark.parametrize("value", [0.5, 0.6, 0.95])
@pytest.mark.parametrize(
    ("m", "n", "classes"), [(10, 10, 1), (2, 1, 10), (5, 2, 3), (12, 30, 4)], ids=str
)
def test_interval_holds_its_coverage(kind, value, m, n, classes):
    """Hanley and McNeil's, used before, covers 58 to 94 % on these."""
    rng = np.random.default_rng([m, n, classes, int(1000 * value), len(kind)])
    draws, covered = 120, 0
    of_m = torch.arange(classes).repeat_interleave(m)
    of_n = torch.arange(classes).repeat_interleave(n)
    for _ in range(draws):
        parts = [_drawn(kind, value, m, n, rng) for _ in range(classes)]
        inside, outside = (torch.from_numpy(np.concatenate(p)) for p in zip(*parts, strict=True))
        _, low, high, _ = class_matched_auc(inside, of_m, outside, of_n)
        covered += low <= value <= high
    assert covered / draws >= 0.935 - 2 * (0.95 * 0.05 / draws) ** 0.5


def test_a_perfect_split_has_a_width_too():
    one = torch.zeros(5, dtype=torch.int64)
    value, low, high, _ = class_matched_auc(torch.ones(5), one, torch.zeros(5), one)
    assert value == 1.0
    assert low < 1.0 == high


def test_null_band_covers_what_chance_gives():
    generator = torch.Generator().manual_seed(0)
    members, outsiders = torch.arange(30) % 3, torch.arange(120) % 3
    band = null_half_width(members, outsiders)
    inside = 0
    for _ in range(400):
        a, b = torch.rand(30, generator=generator), torch.rand(120, generator=generator)
        inside += abs(class_matched_auc(a, members, b, outsiders)[0] - 0.5) <= band
    assert 0.92 <= inside / 400 <= 0.98


def test_null_band_of_few_members_is_wide():
    zeros = torch.zeros(2000, dtype=torch.int64)
    assert null_half_width(zeros[:10], zeros) == pytest.approx(0.18, abs=0.01)
    assert null_half_width(zeros[:1], zeros) > 0.5
    assert null_half_width(zeros[:1], zeros[:0]) == math.inf


def test_movement_is_the_largest_change_and_ignores_removed_outputs():
    gone = -math.inf
    before = torch.tensor([[1.0, 2.0, gone], [0.0, 0.5, gone]])
    after = torch.tensor([[1.5, -1.0, gone], [0.0, 0.5, gone]])
    assert movement(before, after).tolist() == [3.0, 0.0]
