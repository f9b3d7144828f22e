"""Statistics of rows in one streaming pass of the network."""

from __future__ import annotations

import math
import secrets

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import StatisticsError
from expunge.network.heads import Head, backbone_digest, head_matrix
from expunge.network.passes import feature_batches
from expunge.statistics.features import Constants, FeatureStatistics
from expunge.statistics.sums import Sums, ridge_head_of, to_centred, uncentred

__all__ = ["collect_statistics", "collect_sums"]


_DEFAULT_RIDGE = 1e-3
_SAMPLE = 256


def collect_sums(
    model: nn.Module,
    head: Head,
    rows: Rows,
    *,
    mean: Float[Tensor, " features"],
    batch_size: int = 256,
    device: torch.device | None = None,
) -> Sums:
    """Sums over `rows` in one streaming pass, centred by a mean that is already fixed."""
    sums = Sums.zero(head.features, head.classes)
    where = device or torch.device("cpu")
    for features, _, labels in feature_batches(
        model, head, rows, batch_size=batch_size, device=where
    ):
        sums.add(features, labels, mean)
    return sums


def collect_statistics(
    model: nn.Module,
    head: Head,
    rows: Rows,
    *,
    forget: Tensor | None = None,
    ridge: float = _DEFAULT_RIDGE,
    batch_size: int = 256,
    device: torch.device | None = None,
) -> tuple[FeatureStatistics, Sums | None]:
    """Statistics of `rows`, each read once, memory O(d²).

    λ = `ridge`·tr(G)/d of the centred Gram matrix. With `forget`, a boolean mask (n,), the sums of
    those rows are taken in the same pass and returned beside it. The centring vector is a coarsely
    rounded mean over a sample of the rows that stay, which is read first: any fixed vector serves,
    one near the mean keeps the sums well conditioned, and since it is never updated it must not
    tell of a record. A head without bias cannot absorb a shift, so its features are not centred.
    """
    if not len(rows):
        raise StatisticsError("Expected at least one row to make statistics from, got none.")
    highest = int(rows.labels.max())
    if highest >= head.classes:
        raise StatisticsError(
            f"Expected labels below the model's {head.classes} classes, got {highest}."
        )
    where = device or torch.device("cpu")
    whole = Sums.zero(head.features, head.classes)
    part = None if forget is None else Sums.zero(head.features, head.classes)
    sample = _sample(len(rows), forget) if head.has_bias else torch.zeros(0, dtype=torch.int64)
    first = _features(model, head, rows.select(sample), where)
    mean = _centre(first) if head.has_bias else torch.zeros(head.features, dtype=torch.float64)
    rest = torch.ones(len(rows), dtype=torch.bool)
    rest[sample] = False
    others = rest.nonzero().flatten()
    whole.add(first, rows.labels[sample], mean)
    if forget is not None and part is not None and bool(forget[sample].any()):
        part.add(first[forget[sample]], rows.labels[sample][forget[sample]], mean)
    start = 0
    for features, _, labels in feature_batches(
        model, head, rows.select(others), batch_size=batch_size, device=where
    ):
        whole.add(features, labels, mean)
        if forget is not None and part is not None:
            chosen = forget[others[start : start + len(labels)]]
            if bool(chosen.any()):
                part.add(features[chosen.to(features.device)], labels[chosen], mean)
        start += len(labels)
    return _statistics(model, head, rows, whole, mean, ridge), part


def _statistics(
    model: nn.Module,
    head: Head,
    rows: Rows,
    sums: Sums,
    mean: Float[Tensor, " features"],
    ridge: float,
) -> FeatureStatistics:
    """The sums over `rows` with their frozen constants and the digests of what they cover."""
    column = sums.gram[:-1, -1]
    centred = sums.gram[:-1, :-1] - torch.outer(column, column) / len(rows)
    spread = float(torch.trace(centred)) / head.features
    if not spread > 0:
        raise StatisticsError(
            "Expected features that differ between rows, got constant or non-finite ones. The "
            "model's penultimate layer is dead or diverged."
        )
    penalty = ridge * spread
    matrix = head_matrix(model, head)
    constants = Constants(
        mean=mean,
        penalty=penalty,
        scale=_transplant_scale(sums, penalty, matrix, mean, intercept=head.has_bias),
        diagonal=float(torch.trace(uncentred(sums, mean))) / head.features,
        spread=spread,
        intercept=head.has_bias,
    )
    bare = FeatureStatistics(
        sums=sums,
        constants=constants,
        backbone=backbone_digest(model, head),
        head=head.name,
        salt=secrets.token_hex(16),
        members=None,
    )
    return bare.with_members(bare.member(i) for i in rows.ids)


def _sample(n: int, forget: Tensor | None) -> Int[Tensor, " sample"]:
    """Up to 256 places of rows that stay, evenly spaced."""
    stay = torch.arange(n) if forget is None else (~forget).nonzero().flatten()
    stay = stay if len(stay) else torch.arange(n)
    return stay[torch.linspace(0, len(stay) - 1, min(_SAMPLE, len(stay))).long()]


def _features(
    model: nn.Module, head: Head, rows: Rows, device: torch.device
) -> Float[Tensor, "rows features"]:
    parts = [
        features.detach().cpu()
        for features, _, _ in feature_batches(model, head, rows, batch_size=_SAMPLE, device=device)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, head.features)


def _centre(features: Float[Tensor, "rows features"]) -> Float[Tensor, " features"]:
    """The mean of some features, rounded to a sixteenth of the largest entry."""
    mean = features.double().mean(0)
    largest = float(mean.abs().max())
    if not 0.0 < largest < math.inf:
        return torch.zeros_like(mean)
    grain = 2.0 ** math.ceil(math.log2(largest / 16))
    return torch.round(mean / grain) * grain


def _transplant_scale(
    sums: Sums,
    penalty: float,
    matrix: Float[Tensor, "classes features+1"],
    mean: Float[Tensor, " features"],
    *,
    intercept: bool,
) -> float:
    """The least-squares factor s = ⟨A G̃, B⟩ / ⟨B G̃, B⟩ from the ridge head's logits to A's.

    Both are centred over the classes first, since a shift common to all logits means nothing.
    """
    ridge_head = ridge_head_of(sums, penalty, intercept=intercept)
    ridge_head = ridge_head - ridge_head.mean(0)
    centred = to_centred(matrix, mean)
    centred = centred - centred.mean(0)
    below = float((ridge_head @ sums.gram * ridge_head).sum())
    above = float((centred @ sums.gram * ridge_head).sum())
    return above / below
