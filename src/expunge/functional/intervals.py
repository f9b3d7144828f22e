"""Confidence intervals for the rates and differences that audits print."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from scipy.stats import beta, norm
from torch import Tensor

__all__ = [
    "clopper_pearson",
    "mean_interval",
    "paired_difference",
    "rows_for_bound",
    "upper_bound",
]


def clopper_pearson(hits: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate (Clopper and Pearson 1934): lower and upper, in [0, 1]."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def upper_bound(hits: int, n: int, *, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound of a rate (Clopper and Pearson 1934), in [0, 1]."""
    return 1.0 if hits >= n else float(beta.ppf(confidence, hits + 1, n - hits))


def rows_for_bound(hits: int, most: float, *, confidence: float = 0.95) -> int:
    """The fewest rows with so many hits whose upper bound is at most `most`, above 0."""
    low, high = hits, hits + 1
    while upper_bound(hits, high, confidence=confidence) > most:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = upper_bound(hits, middle, confidence=confidence) <= most
        low, high = (low, middle) if enough else (middle, high)
    return high


def paired_difference(
    differences: Int[Tensor, " rows"], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of paired differences in {−1, 0, 1}, with its interval: (mean, low, high).

    The mean is the plain one; the interval is that of Agresti and Min (Statistics in Medicine
    2005), which adds half an observation to each cell and keeps its coverage on small samples.
    """
    n = len(differences)
    gained = int((differences > 0).sum())
    lost = int((differences < 0).sum())
    total = n + 2.0
    up, down = gained + 0.5, lost + 0.5
    centre = (up - down) / total
    spread = math.sqrt(max((up + down) - (up - down) ** 2 / total, 0.0)) / total
    z = float(norm.ppf(0.5 + confidence / 2))
    return (gained - lost) / n, max(centre - z * spread, -1.0), min(centre + z * spread, 1.0)


def mean_interval(
    values: Float[Tensor, " rows"], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean with its normal interval: (mean, low, high); zero width for a single value."""
    n = len(values)
    mean = float(values.double().mean())
    if n < 2:
        return mean, mean, mean
    half = float(norm.ppf(0.5 + confidence / 2)) * float(values.double().std()) / math.sqrt(n)
    return mean, mean - half, mean + half
