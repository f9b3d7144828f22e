"""The shifts behind the gates, and what each record may then claim: proven before it is claimed.

The checker's own bound decides, on the network as it would be deployed, so that whatever is written
into a certificate is accepted by the checker.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from expunge.certificate.bounds import logits_enclosure
from expunge.certificate.facts import RecordEvidence
from expunge.certificate.layers import Network
from expunge.certificate.terms import WIDEST
from expunge.methods.prune.fitting import Entangled, Fitted
from expunge.methods.prune.gates import gate_values, joint_shifts
from expunge.methods.prune.scene import Scene
from expunge.methods.prune.targets import Targets
from expunge.patches.heads import gated

__all__ = ["Claimed", "Patch", "bound_of", "proven_again", "solve_shifts"]

Claim = Literal["unseen", "mispredict", "margin"]


@final
@dataclass(frozen=True, slots=True)
class Claimed:
    """What a record may claim: logits or margin within `bound` of its target, or that lead."""

    claim: Claim
    bound: float


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """Gates `u`, `c` with their shifts `delta` (K, P), who may claim what, and who has none."""

    u: Float[Tensor, "gates features"]
    c: Float[Tensor, " gates"]
    delta: Float[Tensor, "classes gates"]
    claims: Mapping[int, Claimed]
    entangled: Sequence[Entangled]
    by_program: int
    program_seconds: float

    def on(self, scene: Scene) -> nn.Linear:
        """The head with these gates appended to those that it has."""
        return gated(scene.head.of(scene.model), self.u, self.c, self.delta)


def solve_shifts(fitted: Fitted, scene: Scene, targets: Targets) -> Patch:
    """Solve for the shifts jointly, and keep the gates whose records meet their claim provably.

    The claim is checked from where the scene's claims start, with the certificate's own bound, for
    any float32 evaluation. A record's ρ is the least power of two from `targets.bound` that holds
    (at most 1/16); records that meet none are entangled by `rounding` and lose their gate, until
    all that is left holds.
    """
    left = fitted
    patch = _shifted(left, scene, targets)
    while bad := [p for p, group in enumerate(left.served) if set(group) - set(patch.claims)]:
        left = left.without(bad)
        patch = _shifted(left, scene, targets)
    return patch


def _shifted(fitted: Fitted, scene: Scene, targets: Targets) -> Patch:
    """The patch of these gates, with the claims that hold of it."""
    first = torch.tensor([g[0] for g in fitted.served], dtype=torch.int64)
    moves = targets.logits[first] - scene.forget.logits[first].double()
    gates = gate_values(fitted.u, fitted.c, scene.forget.features[first])
    patch = Patch(
        u=fitted.u,
        c=fitted.c,
        delta=joint_shifts(gates, moves).float() if len(first) else moves.T.float(),
        claims={},
        entangled=sorted(fitted.entangled, key=lambda e: e.position),
        by_program=fitted.by_program,
        program_seconds=fitted.program_seconds,
    )
    served = [i for group in fitted.served for i in group]
    claims = _claims(scene.network(patch.on(scene)), served, scene, targets) if served else {}
    return dataclasses.replace(patch, claims=claims)


def _claims(
    network: Network, positions: Sequence[int], scene: Scene, targets: Targets
) -> dict[int, Claimed]:
    """The claims that hold on this network, by position of the record."""
    values, errors = logits_enclosure(network, scene.forget.start[list(positions)])
    bounds = (
        bound_of(
            Claimed(targets.spec, targets.bound),
            int(scene.forget.labels[i]),
            targets.logits[i].numpy(),
            values[row],
            errors[row],
        )
        for row, i in enumerate(positions)
    )
    return {
        i: Claimed(targets.spec, bound)
        for i, bound in zip(positions, bounds, strict=True)
        if bound is not None
    }


def bound_of(
    wanted: Claimed,
    label: int,
    target: NDArray[np.float64] | None,
    value: NDArray[np.float64],
    error: NDArray[np.float64],
) -> float | None:
    """The bound a record may claim: the wanted one, or the next power of two up to 1/16; or None.

    `value` (K,) and `error` (K,) enclose its logits. A lead is claimed as wanted or not at all.
    """
    if wanted.claim == "mispredict" or target is None:
        lead = np.delete(value - error, label).max() - (value[label] + error[label])
        return wanted.bound if float(lead) >= wanted.bound else None
    if wanted.claim == "unseen":
        apart = float(np.max(np.abs(value - target) + error))
    else:
        margin = value[label] - np.delete(value, label).max()
        goal = target[label] - np.delete(target, label).max()
        apart = float(abs(margin - goal) + error[label] + np.delete(error, label).max())
    far = apart * (1 + 2.0**-30) + 2.0**-60
    if far <= wanted.bound:
        return wanted.bound
    return 2.0 ** math.ceil(math.log2(far)) if far <= WIDEST else None


def proven_again(
    network: Network, records: Sequence[RecordEvidence]
) -> list[RecordEvidence] | None:
    """Earlier records with the bounds that hold on this network; None where some claim is lost."""
    if not records:
        return []
    values, errors = logits_enclosure(network, np.stack([r.row for r in records]))
    again = []
    for r, value, error in zip(records, values, errors, strict=True):
        bound = bound_of(Claimed(r.claim, r.tolerance), r.label, r.target, value, error)
        if bound is None:
            return None
        again.append(dataclasses.replace(r, tolerance=bound))
    return again
