"""Gates that tell one record's features from all retained ones, and the shifts they switch on.

Rows are features z (d,). A gate is g(z) = clip(u·z + c, 0, 1): 1 on its record, 0 on every
retained row; `u` (P, d), `c` (P,) and `delta` Δ (K, P) hold P of them. Directions `v` are gates
before they are sized, found in whitened space x = L⁻¹(z − μ), LLᵀ = Σ + εI with Σ the retained
covariance. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = [
    "Whitening",
    "best_scores",
    "directions",
    "gate_values",
    "joint_shifts",
    "nearness",
    "opened_between",
    "whiten",
]

_BLOCK = 8192


@final
@dataclass(frozen=True, slots=True)
class Whitening:
    """x = L⁻¹(z − μ): `mean` μ (d,) and the lower factor `root` L (d, d) of Σ + εI."""

    mean: Float[Tensor, " features"]
    root: Float[Tensor, "features features"]

    def __call__(self, rows: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        """Whitened rows."""
        moved = (rows.double() - self.mean).T
        return torch.linalg.solve_triangular(self.root, moved, upper=False).T

    def back(self, w: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        """Directions v with v·(z − μ) = w·x."""
        return torch.linalg.solve_triangular(self.root.T, w.T, upper=True).T


def whiten(retained: Float[Tensor, "rows features"], ridge: float) -> Whitening:
    """The whitening of the retained rows; ε = `ridge`·tr(Σ)/d, and 1 where they are all equal."""
    d = retained.shape[1]
    mean = retained.double().mean(0)
    gram = torch.zeros(d, d, dtype=torch.float64)
    for part in retained.split(_BLOCK):
        centred = part.double() - mean
        gram.addmm_(centred.T, centred)
    covariance = gram / max(len(retained), 1)
    spread = float(torch.trace(covariance)) / d
    covariance.diagonal().add_(ridge * spread if spread > 0 else 1.0)
    return Whitening(mean, torch.linalg.cholesky(covariance))


def directions(
    white: Whitening, records: Float[Tensor, "records features"]
) -> Float[Tensor, "records features"]:
    """Directions v ∝ (Σ + εI)⁻¹(z − μ), one a record, with v·(z − μ) = 1 (0 for z = μ)."""
    x = white(records)
    square = x.square().sum(1, keepdim=True)
    return white.back(x / torch.where(square > 0, square, 1.0))


def best_scores(
    v: Float[Tensor, "gates features"], retained: Float[Tensor, "rows features"]
) -> Float[Tensor, " gates"]:
    """The largest v·z over the retained rows, one a direction."""
    best = torch.full((len(v),), -torch.inf, dtype=torch.float64)
    for part in retained.split(_BLOCK):
        best = torch.maximum(best, (part.double() @ v.T).amax(0))
    return best


def opened_between(
    v: Float[Tensor, "gates features"],
    own: Float[Tensor, " gates"],
    best: Float[Tensor, " gates"],
) -> tuple[Float[Tensor, "gates features"], Float[Tensor, " gates"]]:
    """Gates (u, c) that open at 5/8 of the way from the best retained score to the record's own.

    They are full at 7/8: the record lies at 1.5, the best retained row at −2.5. The later a gate
    opens, the fewer rows never seen it meets; what is left beyond 7/8 is for rounding.
    """
    width = 0.25 * (own - best)
    return v / width[:, None], -(best + 0.625 * (own - best)) / width


def gate_values(
    u: Float[Tensor, "gates features"],
    c: Float[Tensor, " gates"],
    rows: Float[Tensor, "rows features"],
) -> Float[Tensor, "rows gates"]:
    """clip(Uz + c, 0, 1) in float64."""
    return (rows.double() @ u.double().T + c.double()).clamp(0.0, 1.0)


def nearness(
    u: Float[Tensor, "gates features"],
    c: Float[Tensor, " gates"],
    rows: Float[Tensor, "rows features"],
) -> Float[Tensor, " rows"]:
    """−min_p |U_p z + c_p − 1.5|: 0 where a row lies where some gate's own record does."""
    scores = rows.double() @ u.double().T + c.double()
    return -(scores - 1.5).abs().amin(1)


def joint_shifts(
    gates: Float[Tensor, "records gates"], moves: Float[Tensor, "records classes"]
) -> Float[Tensor, "classes gates"]:
    """Δ with G Δᵀ = moves: every record moves as asked, also where gates overlap.

    Solved apart for every set of records that gates connect; the least-squares solution of least
    norm where G is singular.
    """
    shifts = moves.clone()
    count, group = connected_components(csr_matrix(gates.numpy()), directed=False)
    sizes = np.bincount(group, minlength=count)
    alone = torch.from_numpy((sizes == 1)[group])
    shifts[alone] = moves[alone] / gates.diagonal()[alone, None]
    order = np.argsort(group, kind="stable")
    for part in np.split(order, np.cumsum(sizes)[:-1]):
        if len(part) > 1:
            own = torch.from_numpy(part)
            shifts[own] = torch.linalg.lstsq(
                gates[own][:, own], moves[own], driver="gelsd"
            ).solution
    return shifts.T.contiguous()
