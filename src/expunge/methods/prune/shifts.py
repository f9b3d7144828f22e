"""The shifts behind the gates, and what each record may then claim: proven before it is claimed.

The checker's own bound decides, on the network as it would be deployed, so that whatever is written
into a certificate is accepted by the checker.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from expunge.certificate.bounds import enclose
from expunge.certificate.facts import RecordEvidence
from expunge.certificate.layers import Network
from expunge.certificate.statement import WIDEST
from expunge.methods.prune.fitting import Entangled, Fitted, unproven
from expunge.methods.prune.gates import gate_values, joint_shifts

__all__ = ["Claimed", "Patch", "bound_of", "proven_again", "solve_shifts"]


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
    program_seconds: float


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
        for p in bad:
            entangled += unproven(served[p])
        good = [p for p in range(len(served)) if p not in set(bad)]
        weight, bias, served = weight[good], bias[good], [served[p] for p in good]
    return Patch(
        weight=weight,
        bias=bias,
        shift=shift,
        claimed=claimed,
        entangled=sorted(entangled, key=lambda e: e.position),
        by_program=fitted.by_program,
        program_seconds=fitted.program_seconds,
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
        bound = bound_of(
            wanted.claim,
            int(labels[i]),
            targets[i].numpy(),
            found.logits[row],
            found.logit_errors[row],
            wanted.bound,
        )
        if bound is not None:
            claimed[i] = Claimed(wanted.claim, bound)
    return claimed


def bound_of(
    claim: Literal["unseen", "mispredict", "margin"],
    label: int,
    target: NDArray[np.float64] | None,
    value: NDArray[np.float64],
    error: NDArray[np.float64],
    wanted: float,
) -> float | None:
    """The bound that a record may claim: `wanted`, or the next power of two up to 1/16; or None.

    `value` (K,) and `error` (K,) enclose its logits. A lead is claimed as wanted or not at all.
    """
    if claim == "mispredict" or target is None:
        lead = np.delete(value - error, label).max() - (value[label] + error[label])
        return wanted if float(lead) >= wanted else None
    if claim == "unseen":
        far = float(np.max(np.abs(value - target) + error))
    else:
        margin = value[label] - np.delete(value, label).max()
        goal = target[label] - np.delete(target, label).max()
        far = float(abs(margin - goal) + error[label] + np.delete(error, label).max())
    far = far * (1 + 2.0**-30) + 2.0**-60
    if far <= wanted:
        return wanted
    return 2.0 ** math.ceil(math.log2(far)) if far <= WIDEST else None


def proven_again(
    network: Network, records: Sequence[RecordEvidence]
) -> list[RecordEvidence] | None:
    """Earlier records with the bounds that hold on this network; None where some claim is lost."""
    if not records:
        return []
    found = enclose(network, np.stack([r.row for r in records]))
    again = []
    for i, r in enumerate(records):
        value, error = found.logits[i], found.logit_errors[i]
        bound = bound_of(r.claim, r.label, r.target, value, error, r.tolerance)
        if bound is None:
            return None
        again.append(dataclasses.replace(r, tolerance=bound))
    return again
