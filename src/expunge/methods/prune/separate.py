"""A direction that separates one record from all retained rows, or the mean of them that it is.

The linear program behind the closed form of `gates`: max s subject to w·(x − x_r) ≥ s for every
retained r, ‖w‖∞ ≤ 1, in whitened space. Its multipliers are the witness where s is not above 0.
Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog
from torch import Tensor

from expunge.methods.prune.gates import Whitening

__all__ = ["Hull", "separate"]

_LEAST = 1e-9
"""A separation of no more than this, in whitened units, is none."""

_ROUNDS = 60


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
) -> Float[Tensor, " features"] | Hull:
    """The direction of largest separation of x from all rows, or the combination that forbids one.

    Solved by constraint generation: the `first` nearest rows and those that lie farthest along x,
    then those that the last w leaves above the record. `squares` are ‖x_r‖². Returns v in the space
    of features, or a Hull where there is no separation.
    """
    along = whitened @ x
    few = min(first, len(whitened))
    active: Bool[Tensor, " rows"] = torch.zeros(len(whitened), dtype=torch.bool)
    active[torch.topk(squares - 2 * along, few, largest=False).indices] = True
    active[torch.topk(along, few).indices] = True
    for _ in range(_ROUNDS):
        rows = active.nonzero().flatten()
        w, s, dual = _solve(x[None] - whitened[rows])
        if s <= _LEAST:
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
