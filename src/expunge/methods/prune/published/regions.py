"""Linear regions of ReLU networks, in closed form, and the shift that redirects one of them.

On the inputs that share the activation pattern of x, the network is F x + f, and they form the
polytope S = {A x ≤ b} with one row per hidden ReLU. With J_l = W_l D_{l−1} W_{l−1} … D₁ W₁ (D the
pattern as a 0/1 diagonal) and z_l = J_l x + o_l: a row is (−J, o) where the unit is on, (J, −o)
where it is off, scaled to ‖a‖₁ = 1 so that a violation is an ℓ∞ distance.

Equation: d = max(0, m + max_{j≠t} gap_j)·e_t with gap_j = ℓ_j − ℓ_t at x, or its largest value
over S and the input box. Reference: REASSURE (Fu and Li, ICLR 2022); PRUNE, arXiv 2505.06520.
What we do differently: rows and Jacobian come from one chain of masked products, where the released
code sums gradients that it never zeroes. The margin m is strict. The published specification also
bounds ℓ_j − ℓ_t from below (−100), which serves no forgetting, needs an affine patch and an
invertible completion of the rows e_j − e_t; without it a constant shift of the target's logit
always suffices, H is its size, and a later patch can undo an earlier one only by raising the very
label that was forgotten. Bounds over S are read off the dual, so no solver's status is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linprog
from torch import Tensor

from expunge.errors import MethodError
from expunge.patches.regions import ROUNDING

__all__ = ["Region", "largest", "logit_gaps", "redirect", "region", "region_gaps", "support"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """S = {x : `rows` x ≤ `bounds`}, and the logits `slope` x + `offset` on it; all float64.

    `active` is the activation pattern; `norms` are the ‖a‖₁ before scaling (1 for a zero row).
    """

    rows: Float[Tensor, "units inputs"]
    bounds: Float[Tensor, " units"]
    slope: Float[Tensor, "classes inputs"]
    offset: Float[Tensor, " classes"]
    active: Bool[Tensor, " units"]
    norms: Float[Tensor, " units"]


def region(layers: Sequence[tuple[Tensor, Tensor]], x: Float[Tensor, " inputs"]) -> Region:
    """The linear region of `x` in the ReLU network `layers`, (weight, bias) in forward order.

    A unit at exactly 0 counts as off. A unit that no input moves on S gives a zero row, which never
    excludes anything. Bounds are never below the row at `x`: x lies in S, also after rounding.
    """
    point = x.double()
    slope, offset = (part.double() for part in layers[0])
    z = slope @ point + offset
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for weight, bias in layers[1:]:
        on = z > 0
        found.append((slope, offset, on))
        masked, shift = weight.double() * on, bias.double()
        slope, offset, z = masked @ slope, masked @ offset + shift, masked @ z + shift
    jacobian = torch.cat([part[0] for part in found])
    height = torch.cat([part[1] for part in found])
    active = torch.cat([part[2] for part in found])
    sign = torch.where(active, -1.0, 1.0).double()
    norms = jacobian.abs().sum(1)
    norms = torch.where(norms > 0, norms, 1.0)
    rows = jacobian * (sign / norms)[:, None]
    bounds = torch.maximum(-height * sign / norms, rows @ point)
    return Region(rows, bounds, slope, offset, active, norms)


def support(
    rows: Float[Tensor, "units inputs"],
    bounds: Float[Tensor, " units"],
    sharpness: float,
    x: Float[Tensor, "points inputs"],
) -> Float[Tensor, " points"]:
    """max(0, 1 − Σ_j min(1, λ·viol_j)) by the dense rows: exactly 1 on S, 0 far from it.

    The law that `expunge.patches.regions.supports` is tested against.
    """
    slack = ROUNDING * (x.abs() @ rows.abs().T + bounds.abs())
    beyond = torch.relu(x @ rows.T - bounds - slack)
    return torch.relu(1.0 - (sharpness * beyond).clamp_max(1.0).sum(1))


def largest(
    objective: Float[Tensor, " inputs"],
    rows: Float[Tensor, "units inputs"],
    bounds: Float[Tensor, " units"],
    low: Float[Tensor, " inputs"],
    high: Float[Tensor, " inputs"],
) -> float:
    """A sound upper bound of max objective·x over {rows x ≤ bounds, low ≤ x ≤ high}, tight.

    Rows that the box implies are dropped, HiGHS solves the rest, and the bound is that of its dual
    y ≥ 0: y·b + Σ max over the box of (objective − Aᵀy)·x. Raises MethodError where it finds none.
    """
    reach = torch.where(rows > 0, rows * high, rows * low).sum(1)
    cutting = reach > bounds
    kept, limits = rows[cutting], bounds[cutting]
    found = linprog(
        -objective.numpy(),
        A_ub=kept.numpy(),
        b_ub=limits.numpy(),
        bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
        method="highs",
    )
    if found.status != 0:
        raise MethodError(
            f"Expected the linear program over a region to have a solution, got: {found.message} "
            'Check that the input box holds every record, or use `patch="constant"`.'
        )
    dual = torch.from_numpy(-np.minimum(found.ineqlin.marginals, 0.0))
    rest = objective - kept.T @ dual
    return float(dual @ limits + torch.maximum(rest * low, rest * high).sum())


def logit_gaps(logits: Float[Tensor, " classes"], target: int) -> Float[Tensor, " classes"]:
    """ℓ_j − ℓ_t at one point."""
    return logits - logits[target]


def region_gaps(
    where: Region,
    target: int,
    low: Float[Tensor, " inputs"],
    high: Float[Tensor, " inputs"],
) -> Float[Tensor, " classes"]:
    """The largest ℓ_j − ℓ_t over the region and the box, for every j: one linear program each."""
    slope = where.slope - where.slope[target]
    offset = where.offset - where.offset[target]
    gaps = [
        0.0 if j == target else largest(slope[j], where.rows, where.bounds, low, high)
        for j in range(len(offset))
    ]
    return torch.tensor(gaps, dtype=torch.float64) + offset


def redirect(
    gaps: Float[Tensor, " classes"], target: int, margin: float
) -> Float[Tensor, " classes"]:
    """The least raise of `target` alone after which it leads every other label by `margin`.

    d = max(0, margin + max_{j≠t} gap_j)·e_t. No completion of the rows e_j − e_t is inverted.
    """
    others = torch.arange(len(gaps)) != target
    shift = torch.zeros_like(gaps)
    shift[target] = (gaps[others].max() + margin).clamp_min(0.0)
    return shift
