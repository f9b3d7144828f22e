"""The shifts behind the gates, and what each record may then claim: proven before it is claimed.

The checker's own bound decides, on the network as it would be deployed, so that whatever is written
into a certificate is accepted by the checker.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from expunge._patching import Entangled, Fitted, alike
from expunge.certificate.bounds import enclose
from expunge.certificate.network import Network
from expunge.functional.gates import gate_values, joint_shifts

__all__ = ["Claimed", "Patch", "solve_shifts"]


@final
@dataclass(frozen=True, slots=True)
class Claimed:
    """What a record may claim: logits or margin within `bound` of its target, or that lead."""

    claim: Literal["unseen", "mispredict", "margin"]
    bound: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Gates with their shifts Δ (K, P), what each served record may claim, and who has none."""

    weight: Float[Tensor, "gates features"]
    bias: Float[Tensor, " gates"]
    shift: Float[Tensor, "classes gates"]
    claimed: dict[int, Claimed]
    entangled: list[Entangled]
    by_program: int


_WIDEST = 2.0**-4


def solve_shifts(
    fitted: Fitted,
    records: Float[Tensor, "records features"],
    logits: Float[Tensor, "records classes"],
    targets: Float[Tensor, "records classes"],
    labels: Int[Tensor, " records"],
    wanted: Claimed,
    *,
    rows: NDArray[np.float32],
    network: Callable[[Tensor, Tensor, Tensor], Network],
) -> Patch:
    """Solve for the shifts jointly, and keep the gates whose records meet their claim provably.

    The claim is checked on `rows` with the certificate's own bound, for any float32 evaluation;
    `network` makes the deployed network of gates and shifts. A record's ρ is the least power of two
    from `wanted.bound` that holds (at most 1/16); records that meet none are entangled by
    `rounding` and lose their gate, until all that is left holds.
    """
    weight, bias, served = fitted.weight, fitted.bias, list(fitted.served)
    entangled = list(fitted.entangled)
    while True:
        first = torch.tensor([g[0] for g in served], dtype=torch.int64)
        gates = gate_values(weight, bias, records[first])
        moves = targets[first] - logits[first].double()
        shift = joint_shifts(gates, moves).float() if served else moves.T.float()
        claimed = _claims(network(weight, bias, shift), served, targets, labels, wanted, rows)
        bad = [p for p, group in enumerate(served) if any(i not in claimed for i in group)]
        if not bad:
            break
        nothing = torch.zeros(0)
        for p in bad:
            entangled += alike(served[p], "rounding", nothing.long(), nothing, 0.0)
        good = [p for p in range(len(served)) if p not in set(bad)]
        weight, bias, served = weight[good], bias[good], [served[p] for p in good]
    return Patch(
        weight=weight,
        bias=bias,
        shift=shift,
        claimed=claimed,
        entangled=sorted(entangled, key=lambda e: e.position),
        by_program=fitted.by_program,
    )


def _claims(
    network: Network,
    served: list[list[int]],
    targets: Tensor,
    labels: Tensor,
    wanted: Claimed,
    rows: NDArray[np.float32],
) -> dict[int, Claimed]:
    """The claims that hold, by position of the record."""
    positions = [i for group in served for i in group]
    if not positions:
        return {}
    found = enclose(network, rows[positions])
    claimed: dict[int, Claimed] = {}
    for row, i in enumerate(positions):
        value, error = found.logits[row], found.logit_errors[row]
        if wanted.claim == "unseen":
            far = float(np.max(np.abs(value - targets[i].numpy()) + error)) * (1 + 2.0**-30)
            least = max(wanted.bound, 2.0 ** math.ceil(math.log2(far)) if far > 0 else 0.0)
            if far <= least <= max(_WIDEST, wanted.bound):
                claimed[i] = Claimed("unseen", least)
            continue
        own = int(labels[i])
        others = np.delete(value - error, own)
        if float(others.max() - (value[own] + error[own])) >= wanted.bound:
            claimed[i] = wanted
    return claimed
