"""Sums over rows of centred, bias-augmented features: what a head can be edited from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from scipy.linalg.blas import dsyrk
from torch import Tensor

__all__ = ["Sums", "ridge_head_of", "to_centred", "uncentred"]


@final
@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over rows of centred, bias-augmented features h̃ = [h − m; 1], all float64.

    `gram` (d+1, d+1) = Σ h̃h̃ᵀ, `class_sums` (K, d+1) = Σ t h̃ᵀ with one-hot t, `counts` (K,).
    """

    gram: Float[Tensor, "features+1 features+1"]
    class_sums: Float[Tensor, "classes features+1"]
    counts: Int[Tensor, " classes"]

    @property
    def rows(self) -> int:
        """How many rows were summed."""
        return int(self.counts.sum())

    def minus(self, other: Sums) -> Sums:
        """The sums without the rows of `other`."""
        return Sums(
            self.gram - other.gram,
            self.class_sums - other.class_sums,
            self.counts - other.counts,
        )

    @staticmethod
    def of(
        augmented: Float[Tensor, "rows features+1"], labels: Int[Tensor, " rows"], classes: int
    ) -> Sums:
        """The sums over rows whose centred, augmented features are at hand."""
        sums = Sums.zero(augmented.shape[1] - 1, classes)
        sums._add(augmented, labels)
        return sums

    @staticmethod
    def zero(features: int, classes: int) -> Sums:
        """The sums over no rows."""
        return Sums(
            torch.zeros(features + 1, features + 1, dtype=torch.float64),
            torch.zeros(classes, features + 1, dtype=torch.float64),
            torch.zeros(classes, dtype=torch.int64),
        )

    def add(
        self,
        features: Float[Tensor, "batch features"],
        labels: Int[Tensor, " batch"],
        mean: Float[Tensor, " features"],
    ) -> None:
        """Add a batch in place (used while a pass is running, before the value is shared)."""
        self._add(augment(features, mean), labels.cpu())

    def _add(self, rows: Float[Tensor, "rows features+1"], labels: Int[Tensor, " rows"]) -> None:
        _add_gram(self.gram, rows)
        self.class_sums.index_add_(0, labels, rows)
        self.counts.add_(torch.bincount(labels, minlength=len(self.counts)))


def _add_gram(total: Float[Tensor, "columns columns"], rows: Float[Tensor, "rows columns"]) -> None:
    """Add RᵀR in float64; by symmetric rank-k update, half the work, where it is large."""
    if len(rows) < rows.shape[1] or rows.shape[1] < 512:
        total.addmm_(rows.T, rows)
        return
    upper = torch.from_numpy(dsyrk(1.0, rows.contiguous().numpy().T))
    total.add_(torch.triu(upper)).add_(torch.triu(upper, 1).T)


def augment(
    features: Float[Tensor, "batch features"], mean: Float[Tensor, " features"]
) -> Float[Tensor, "batch features+1"]:
    """h̃ = [h − m; 1] in float64 on the CPU."""
    out = torch.ones(len(features), features.shape[1] + 1, dtype=torch.float64)
    out[:, :-1].copy_(features.detach()).sub_(mean)
    return out


def uncentred(sums: Sums, mean: Float[Tensor, " features"]) -> Float[Tensor, "features features"]:
    """G = Σ hhᵀ of the raw features."""
    cross = torch.outer(sums.gram[:-1, -1], mean)
    return sums.gram[:-1, :-1] + cross + cross.T + sums.rows * torch.outer(mean, mean)


def ridge_head_of(
    sums: Sums, penalty: float, *, intercept: bool
) -> Float[Tensor, "classes features+1"]:
    """B = C (G̃ + λ·diag(1,..,1,0))⁻¹, λ = `penalty`; without an intercept its last column is 0."""
    classes = len(sums.counts)
    wanted = sums.class_sums - sums.gram[-1] / classes
    if not intercept:
        block = sums.gram[:-1, :-1] + penalty * torch.eye(len(sums.gram) - 1, dtype=torch.float64)
        weight: Tensor = torch.linalg.solve(block, wanted[:, :-1].T)
        return torch.cat([weight.T, torch.zeros(classes, 1, dtype=torch.float64)], dim=1)
    diagonal = torch.full((len(sums.gram),), penalty, dtype=torch.float64)
    diagonal[-1] = 0.0
    solved: Tensor = torch.linalg.solve(sums.gram + torch.diag(diagonal), wanted.T)
    return solved.T


def to_centred(
    matrix: Float[Tensor, "classes features+1"], mean: Float[Tensor, " features"]
) -> Float[Tensor, "classes features+1"]:
    """[W, b] for features h as [W, b + Wm] for centred features h − m: the same logits."""
    out = matrix.clone()
    out[:, -1] += matrix[:, :-1] @ mean
    return out


def from_centred(
    matrix: Float[Tensor, "classes features+1"], mean: Float[Tensor, " features"]
) -> Float[Tensor, "classes features+1"]:
    """The inverse of `to_centred`."""
    out = matrix.clone()
    out[:, -1] -= matrix[:, :-1] @ mean
    return out
