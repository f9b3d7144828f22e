"""Linear regions of ReLU networks, in closed form, and the shift that redirects one of them.

On the inputs that share the activation pattern of x, the network is F x + f, and they form the
polytope S = {A x ≤ b} with one row per hidden ReLU. With J_l = W_l D_{l−1} W_{l−1} … D₁ W₁ (D the
pattern as a 0/1 diagonal) and z_l = J_l x + o_l: a row is (−J, o) where the unit is on, (J, −o)
where it is off, scaled to ‖a‖₁ = 1 so that a violation is an ℓ∞ distance.

Equation: d = max(0, m + max_{j≠t} (ℓ_j − ℓ_t))·e_t with ℓ the logits at x and t the forced label.
Reference: REASSURE (Fu and Li, ICLR 2022); PRUNE, arXiv 2505.06520. What we do differently: norms
and Jacobian come from one chain of masked products, where the released code sums gradients that it
never zeroes. The margin m is strict. The published specification also bounds ℓ_j − ℓ_t from below
(−100), which serves no forgetting, needs an affine patch and an invertible completion of the rows
e_j − e_t; without it a constant shift of the forced label's logit always suffices, H is its size,
and a later patch can undo an earlier one only by raising the very label that was forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Region", "redirect", "region"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """S by its activation pattern `active`, and the logits `slope` x + `offset` on it; float64.

    `norms` are the ‖a‖₁ of its rows before scaling (1 for a zero row). The rows themselves are
    never needed: a patch computes their violations from the layers.
    """

    slope: Float[Tensor, "classes inputs"]
    offset: Float[Tensor, " classes"]
    active: Bool[Tensor, " units"]
    norms: Float[Tensor, " units"]


def region(layers: Sequence[tuple[Tensor, Tensor]], x: Float[Tensor, " inputs"]) -> Region:
    """The linear region of `x` in the ReLU network `layers`, (weight, bias) in forward order.

    A unit at exactly 0 counts as off. A unit that no input moves on S gives a zero row, which never
    excludes anything.
    """
    point = x.double()
    slope, offset = (part.double() for part in layers[0])
    z = slope @ point + offset
    found: list[tuple[Tensor, Tensor]] = []
    for weight, bias in layers[1:]:
        on = z > 0
        found.append((slope, on))
        masked, shift = weight.double() * on, bias.double()
        slope, offset, z = masked @ slope, masked @ offset + shift, masked @ z + shift
    norms = torch.cat([jacobian.abs().sum(1) for jacobian, _ in found])
    return Region(
        slope=slope,
        offset=offset,
        active=torch.cat([on for _, on in found]),
        norms=torch.where(norms > 0, norms, 1.0),
    )


def redirect(
    logits: Float[Tensor, " classes"], forced: int, margin: float
) -> Float[Tensor, " classes"]:
    """The least raise of the label `forced` alone after which it leads all others by `margin`.

    d = max(0, margin + max_{j≠t} (ℓ_j − ℓ_t))·e_t. No completion of the rows e_j − e_t is inverted.
    """
    gaps = logits - logits[forced]
    others = torch.arange(len(gaps)) != forced
    shift = torch.zeros_like(gaps)
    shift[forced] = (gaps[others].max() + margin).clamp_min(0.0)
    return shift
