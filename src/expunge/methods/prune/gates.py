"""Gates that tell one record's features from all retained ones, and the shifts they switch on.

Rows are features z (d,). A gate is g(z) = clip(u·z + c, 0, 1): 1 on its record, 0 on every
retained row. Directions are found in whitened space x = L⁻¹(z − μ), LLᵀ = Σ + εI with Σ the
retained covariance. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

__all__ = [
    "Hull",
    "Whitening",
    "best_scores",
    "directions",
    "gate_values",
    "joint_shifts",
    "nearness",
    "opened_between",
    "separate",
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
        """Directions u with u·(z − μ) = w·x."""
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
    """Directions u ∝ (Σ + εI)⁻¹(z − μ), one a record, with u·(z − μ) = 1 (0 for z = μ)."""
    x = white(records)
    square = x.square().sum(1, keepdim=True)
    return white.back(x / torch.where(square > 0, square, 1.0))


def best_scores(
    u: Float[Tensor, "gates features"], retained: Float[Tensor, "rows features"]
) -> Float[Tensor, " gates"]:
    """The largest u·z over the retained rows, one a direction."""
    best = torch.full((len(u),), -torch.inf, dtype=torch.float64)
    for part in retained.split(_BLOCK):
        best = torch.maximum(best, (part.double() @ u.T).amax(0))
    return best


def opened_between(
    u: Float[Tensor, "gates features"],
    own: Float[Tensor, " gates"],
    best: Float[Tensor, " gates"],
) -> tuple[Float[Tensor, "gates features"], Float[Tensor, " gates"]]:
    """Gates (U, c) that open at 5/8 of the way from the best retained score to the record's own.

    They are full at 7/8: the record lies at 1.5, the best retained row at −2.5. The later a gate
    opens, the fewer rows never seen it meets; what is left beyond 7/8 is for rounding.
    """
    width = 0.25 * (own - best)
    return u / width[:, None], -(best + 0.625 * (own - best)) / width


def gate_values(
    weight: Tensor, bias: Tensor, rows: Float[Tensor, "rows features"]
) -> Float[Tensor, "rows gates"]:
    """clip(Uz + c, 0, 1) in float64."""
    return (rows.double() @ weight.double().T + bias.double()).clamp(0.0, 1.0)


def nearness(
    weight: Tensor, bias: Tensor, rows: Float[Tensor, "rows features"]
) -> Float[Tensor, " rows"]:
    """−min_p |U_p z + c_p − 1.5|: 0 where a row lies where some gate's own record does."""
    scores = rows.double() @ weight.double().T + bias.double()
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


@final
@dataclass(frozen=True, slots=True)
class Hull:
    """Retained rows and weights whose mean is the record: why no gate separates it."""

    rows: Int[Tensor, " support"]
    weights: Float[Tensor, " support"]


def separate(
    white: Whitening,
    x: Float[Tensor, " features"],
    whitened: Float[Tensor, "rows features"],
    squares: Float[Tensor, " rows"],
    *,
    first: int,
    least: float = 1e-9,
    rounds: int = 60,
) -> Float[Tensor, " features"] | Hull:
    """The direction of largest separation of x from all rows, or the combination that forbids one.

    Solves max s subject to w·(x − x_r) ≥ s for all r, ‖w‖∞ ≤ 1, in whitened space, by constraint
    generation: the `first` nearest rows and those that lie farthest along x, then those that the
    last w leaves above the record. `squares` are ‖x_r‖². Returns u in the space of features, or a
    Hull where s ≤ `least`.
    """
    along = whitened @ x
    few = min(first, len(whitened))
    active: Bool[Tensor, " rows"] = torch.zeros(len(whitened), dtype=torch.bool)
    active[torch.topk(squares - 2 * along, few, largest=False).indices] = True
    active[torch.topk(along, few).indices] = True
    for _ in range(rounds):
        rows = active.nonzero().flatten()
        w, s, dual = _solve(x[None] - whitened[rows])
        if s <= least:
            used = dual > 0
            return Hull(rows[used], dual[used] / dual[used].sum())
        scores = float(x @ w) - whitened @ w
        broken = (scores < s * (1 - 1e-6)) & ~active
        if not bool(broken.any()):
            break
        order = torch.topk(torch.where(broken, -scores, -torch.inf), few).indices
        active[order[broken[order]]] = True
    return white.back(w[None])[0]


def _solve(gaps: Float[Tensor, "rows features"]) -> tuple[Tensor, float, Tensor]:
    """Solve max s: w·gap ≥ s, ‖w‖∞ ≤ 1, by HiGHS; and the multipliers of the rows (sum one)."""
    n, d = gaps.shape
    cost = np.zeros(d + 1)
    cost[-1] = -1.0
    matrix = np.hstack([-gaps.numpy(), np.ones((n, 1))])
    bounds = [(-1.0, 1.0)] * d + [(None, None)]
    found = linprog(
        cost,
        A_ub=matrix,
        b_ub=np.zeros(n),
        bounds=bounds,
        method="highs",
        options={"presolve": False},  # nothing to simplify in dense rows: it doubles the time
    )
    if found.x is None:  # numerical trouble: nothing is claimed
        return torch.zeros(d, dtype=torch.float64), 0.0, torch.zeros(n, dtype=torch.float64)
    dual = torch.from_numpy(-np.asarray(found.ineqlin.marginals)).double()
    return torch.from_numpy(found.x[:-1].copy()), float(found.x[-1]), dual.clamp_min(0.0)
