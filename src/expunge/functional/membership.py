"""Membership inference on outputs: how well a score tells forget records from unseen ones."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from scipy.stats import norm, rankdata
from torch import Tensor

__all__ = ["auc", "class_matched_auc", "losses", "margins", "movement", "null_half_width"]


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


def class_matched_auc(
    members: Float[Tensor, " m"],
    member_labels: Int[Tensor, " m"],
    outsiders: Float[Tensor, " n"],
    outsider_labels: Int[Tensor, " n"],
    *,
    confidence: float = 0.95,
) -> tuple[float, float, float, int]:
    """AUC within each class, weighted by its members: (auc, low, high, members used).

    The interval is Hanley and McNeil's (Radiology 1982), variances of classes added. Classes
    without outsiders are left out and not counted; with none left the AUC is NaN.
    """
    used, total, variance = 0, 0.0, 0.0
    for label in member_labels.unique().tolist():
        inside = members[member_labels == label]
        outside = outsiders[outsider_labels == label]
        m, n = len(inside), len(outside)
        if n == 0:
            continue
        a = auc(inside, outside)
        # Hanley-McNeil; kept away from 0 and 1 so that a perfect split has a width too.
        b = min(max(a, 0.5 / (m * n)), 1 - 0.5 / (m * n))
        q1, q2 = b / (2 - b), 2 * b * b / (1 + b)
        spread = (b * (1 - b) + (m - 1) * (q1 - b * b) + (n - 1) * (q2 - b * b)) / (m * n)
        used += m
        total += m * a
        variance += m * m * spread
    if used == 0:
        return math.nan, math.nan, math.nan, 0
    half = float(norm.ppf(0.5 + confidence / 2)) * math.sqrt(variance) / used
    return total / used, total / used - half, total / used + half, used


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
