"""Membership inference on outputs: how well a score tells forget records from unseen ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm, rankdata
from torch import Tensor

__all__ = ["Auc", "auc", "class_matched_auc", "losses", "margins", "movement", "null_half_width"]

_Array = npt.NDArray[np.float64]


def losses(
    logits: Float[Tensor, "rows classes"], labels: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Cross-entropy a row, float64."""
    return torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")


def margins(
    logits: Float[Tensor, "rows classes"], labels: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """z_y less the best other logit a row: how far the label leads, negative where it does not.

    Not the logit of the label's probability (z_y − logsumexp of the others): that one rises and
    falls with the loss, and would only count the loss twice.
    """
    z = logits.double()
    own = z.gather(1, labels[:, None])
    return own[:, 0] - z.scatter(1, labels[:, None], -torch.inf).amax(dim=1)


def movement(
    before: Float[Tensor, "rows classes"], after: Float[Tensor, "rows classes"]
) -> Float[Tensor, " rows"]:
    """The largest change of a logit, a row: what whoever holds both models can rank rows by.

    Outputs at −inf in both models do not count.
    """
    changed = (after.double() - before.double()).abs()
    return torch.where(after == before, 0.0, changed).amax(1)


def auc(members: Float[Tensor, " m"], outsiders: Float[Tensor, " n"]) -> float:
    """P(member score > outsider score), ties counted half (Mann-Whitney)."""
    ranks = rankdata(torch.cat([members, outsiders]).numpy())
    m, n = len(members), len(outsiders)
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))


@final
class Auc(NamedTuple):
    """A class-matched AUC with its interval; `used` counts the members that could be compared."""

    value: float
    low: float
    high: float
    used: int


def class_matched_auc(
    members: Float[Tensor, " m"],
    member_labels: Int[Tensor, " m"],
    outsiders: Float[Tensor, " n"],
    outsider_labels: Int[Tensor, " n"],
    *,
    confidence: float = 0.95,
) -> Auc:
    """AUC within each class, weighted by its members.

    The interval spans two, since neither holds its coverage everywhere: the score interval on the
    variance of Newcombe (Statistics in Medicine 2006, method 5), which holds for few rows and near
    0 and 1, and the logit interval on the variance of the rows' placements (DeLong et al.,
    Biometrics 1988), pooled over the classes, which holds where members and outsiders spread
    differently. Classes without outsiders are left out and not counted; with none left all figures
    are NaN.
    """
    placed = [
        _placements(members[member_labels == label], outsiders[outsider_labels == label])
        for label in member_labels.unique().tolist()
        if bool((outsider_labels == label).any())
    ]
    if not placed:
        return Auc(math.nan, math.nan, math.nan, 0)
    m = np.array([len(own) for own, _ in placed], dtype=float)
    n = np.array([len(theirs) for _, theirs in placed], dtype=float)
    total = float(m.sum())
    value = float(sum(own.sum() for own, _ in placed) / total)
    z = float(norm.ppf(0.5 + confidence / 2))
    low, high = _score_interval(value, m, n, z)
    wide = _spread_of(value, placed, m / total, n)
    own_low, own_high = _logit_interval(value, wide, z)
    return Auc(value, min(low, own_low), max(high, own_high), int(total))


def _placements(
    members: Float[Tensor, " m"], outsiders: Float[Tensor, " n"]
) -> tuple[_Array, _Array]:
    """The share of outsiders below each member, and of members above each outsider; ties half."""
    x, y = members.double().numpy(), outsiders.double().numpy()
    below, above = np.sort(y), np.sort(x)
    own = np.searchsorted(below, x, "left") + np.searchsorted(below, x, "right")
    theirs = np.searchsorted(above, y, "left") + np.searchsorted(above, y, "right")
    return own / (2 * len(y)), 1.0 - theirs / (2 * len(x))


def _spread_of(
    value: float, placed: Sequence[tuple[_Array, _Array]], weights: _Array, n: _Array
) -> float:
    """The variance of the weighted AUC from placements about it; that of a coin for one row."""
    own = np.concatenate([part for part, _ in placed]) - value
    theirs = np.concatenate([part for _, part in placed]) - value
    inner = float((own**2).sum()) / (len(own) - 1) if len(own) > 1 else 0.25
    outer = float((theirs**2).sum()) / (len(theirs) - 1) if len(theirs) > 1 else 0.25
    return inner / len(own) + outer * float((weights**2 / n).sum())


def _logit_interval(value: float, variance: float, z: float) -> tuple[float, float]:
    if not 0.0 < value < 1.0:
        return value, value
    share = value * (1.0 - value)
    half = z * math.sqrt(variance) / share
    middle = math.log(value / (1.0 - value))
    return float(expit(middle - half)), float(expit(middle + half))


def _score_interval(value: float, m: _Array, n: _Array, z: float) -> tuple[float, float]:
    """All a with |value − a| ≤ z·sd(a); sd as for one family of distributions a class."""
    more, weights = (m + n) / 2 - 1, m / m.sum()

    def outside(a: float) -> float:
        parts = a * (1 - a) * (1 + more * (1 - a) / (2 - a) + more * a / (1 + a)) / (m * n)
        return abs(value - a) - z * math.sqrt(float((weights**2 * parts).sum()))

    edge = 1e-12
    inside = min(max(value, edge), 1 - edge)  # at 0 and 1 themselves nothing spreads
    low = 0.0 if outside(edge) <= 0 else float(brentq(outside, edge, inside))
    high = 1.0 if outside(1 - edge) <= 0 else float(brentq(outside, inside, 1 - edge))
    return low, high


def null_half_width(
    member_labels: Int[Tensor, " m"],
    outsider_labels: Int[Tensor, " n"],
    *,
    confidence: float = 0.95,
) -> float:
    """How far from 0.5 a class-matched AUC falls by chance, where nothing tells members apart.

    Half the width of the null band, from the Mann-Whitney variance (m + n + 1) / 12mn of each
    class. With ten members no excess below about 0.18 can be seen; with one, none at all.
    """
    used, variance = 0, 0.0
    for label in member_labels.unique().tolist():
        m, n = int((member_labels == label).sum()), int((outsider_labels == label).sum())
        if n:
            used += m
            variance += m * m * (m + n + 1) / (12 * m * n)
    return float(norm.ppf(0.5 + confidence / 2)) * math.sqrt(variance) / used if used else math.inf
