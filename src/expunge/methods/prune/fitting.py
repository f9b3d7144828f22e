"""From features to gates that are proven shut and open, to targets, and to the evidence of both.

What the method PRUNE needs between pure mathematics and the model: gates are accepted only with
slack above the rounding error of any float32 evaluation, so that the checker will accept them too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expunge.methods.prune.gates import (
    Hull,
    best_scores,
    directions,
    opened_between,
    separate,
    whiten,
)
from expunge.methods.prune.twins import Twins

__all__ = ["Entangled", "Fitted", "Reason", "fit_gates", "unproven"]

_UNIT = 2.0**-24
_LOOSE = 2.0**-13
Reason = Literal["identical", "hull", "rounding"]


@final
@dataclass(frozen=True, slots=True)
class Entangled:
    """A record that no gate separates: its position, why, and the retained rows that prevent it."""

    position: int
    reason: Reason
    rows: Int[Tensor, " support"]
    weights: Float[Tensor, " support"]
    residual: float


@final
@dataclass(slots=True)
class Fitted:
    """Gates U (P, d) and c (P,) in the head's dtype, and which forget rows each one serves.

    `served[p]` are the positions of the records of gate p (several only where their content or
    their features are equal). `by_program` counts the gates that the linear program found, in
    `program_seconds`.
    """

    weight: Float[Tensor, "gates features"]
    bias: Float[Tensor, " gates"]
    served: list[list[int]] = field(default_factory=list)
    entangled: list[Entangled] = field(default_factory=list)
    by_program: int = 0
    program_seconds: float = 0.0


def fit_gates(
    records: Float[Tensor, "records features"],
    labels: Int[Tensor, " records"],
    kept: Float[Tensor, "rows features"],
    past: Float[Tensor, "earlier features"],
    twins: Twins,
    *,
    ridge: float,
    nearest: int,
    report: Callable[[str, int, int], None],
) -> Fitted:
    """One gate a distinct record: closed form first, the linear program where that fails.

    Gates are shut on what is kept and on `past`, the records of earlier requests. Records of equal
    content or equal features share a gate; a record that is also among what is kept gets none.
    """
    found = Fitted(torch.zeros(0, records.shape[1]), torch.zeros(0))
    groups, found.entangled = _groups(records, labels, kept, twins)
    if not groups:
        return found
    retained = torch.cat([kept, past]) if len(past) else kept
    z = records[torch.tensor([g[0] for g in groups])].double()
    reach = retained.abs().amax(0).double()
    white = whiten(retained, ridge)
    u = directions(white, z)
    best = best_scores(u, retained)
    weight, bias, good = _proven(u, (u * z).sum(1), best, z, retained, reach)
    chosen = {p: (weight[p], bias[p]) for p in range(len(groups)) if good[p]}
    hard = [p for p in range(len(groups)) if not good[p]]
    began = time.perf_counter()
    whitened = white(retained) if hard else retained[:0].double()
    squares = whitened.square().sum(1)
    for done, p in enumerate(hard):
        report("separating records by linear programs", done, len(hard))
        answer = separate(white, white(z[p][None])[0], whitened, squares, first=nearest)
        if isinstance(answer, Hull):
            found.entangled += _entangled(groups[p], answer, records, kept)
            continue
        v = answer[None]
        w, c, ok = _proven(
            v, (v * z[p]).sum(1), best_scores(v, retained), z[p][None], retained, reach
        )
        if not ok[0]:
            found.entangled += _entangled(groups[p], None, records, kept)
            continue
        chosen[p] = (w[0], c[0])
        found.by_program += 1
    if hard:
        report("separating records by linear programs", len(hard), len(hard))
        found.program_seconds = time.perf_counter() - began
    if chosen:
        order = sorted(chosen)
        found.weight = torch.stack([chosen[p][0] for p in order])
        found.bias = torch.stack([chosen[p][1] for p in order])
        found.served = [groups[p] for p in order]
        _narrow_overlaps(found, z, z[torch.tensor(order)], retained, reach)
    return found


def _narrow_overlaps(
    found: Fitted, z: Tensor, own_rows: Tensor, retained: Tensor, reach: Tensor
) -> None:
    """Raise the thresholds of gates that open on other forget rows, where the proof allows it."""
    u = found.weight.double()
    scores = z @ u.T
    own = (own_rows * u).sum(1)
    other = torch.where(scores < own[None] - 1e-9, scores, -torch.inf).amax(0)
    touching = (other + found.bias.double() > 0).nonzero().flatten()
    if not len(touching):
        return
    best = torch.maximum(best_scores(u[touching], retained), other[touching])
    weight, bias, good = _proven(
        u[touching], own[touching], best, own_rows[touching], retained, reach
    )
    kept = torch.tensor(good, dtype=torch.bool)
    found.weight[touching[kept]] = weight[kept]
    found.bias[touching[kept]] = bias[kept]


def unproven(positions: Sequence[int]) -> list[Entangled]:
    """Records without a gate that holds beyond rounding, and without a witness."""
    nothing = torch.zeros(0)
    return [Entangled(p, "rounding", nothing.long(), nothing.double(), 0.0) for p in positions]


def _groups(
    records: Tensor, labels: Tensor, kept: Tensor, twins: Twins
) -> tuple[list[list[int]], list[Entangled]]:
    """Positions that share a gate, and the records that none can serve."""
    left: list[Entangled] = []
    groups: dict[bytes, list[int]] = {}
    for members in twins.groups:
        row = twins.retained.get(members[0])
        if row is None:
            content = records[members[0]].float().numpy().tobytes()
            groups.setdefault(content, []).extend(members)
        else:
            one = _only(row)
            left += [Entangled(i, "identical", one.rows, one.weights, 0.0) for i in members]
    good = []
    for group in groups.values():
        if len(labels[group].unique()) == 1:
            good.append(group)
        else:
            left += _entangled(group, None, records, kept)
    return good, left


def _entangled(
    positions: Sequence[int], hull: Hull | None, records: Tensor, kept: Tensor
) -> list[Entangled]:
    """Why no gate serves these records of equal features: the closest mean of kept rows, if any.

    Either the nearest row alone or the hull that the linear program found. Where neither is a
    witness that a checker would take (earlier records in it, no solution, too far), `rounding`.
    """
    nearest = int((kept - records[positions[0]]).abs().amax(1).argmin())
    means = [_mean(positions, _only(nearest), records, kept)]
    if hull is not None and len(hull.rows) and int(hull.rows.max()) < len(kept):
        means.append(_mean(positions, hull, records, kept))
    best = min(means, key=lambda entries: entries[0].residual)
    shown = all(e.residual <= _LOOSE * float(records[e.position].abs().max()) for e in best)
    return best if shown else unproven(positions)


def _mean(positions: Sequence[int], hull: Hull, records: Tensor, kept: Tensor) -> list[Entangled]:
    """One entry a record, with its distance to the mean; float64 errors are counted."""
    rows = kept[hull.rows].double()
    mean, size = hull.weights @ rows, hull.weights @ rows.abs()
    slack = 2.0**-40 * float(size.max()) if len(rows) > 1 else 0.0
    far = [float((mean - records[i].double()).abs().max()) for i in positions]
    return [
        Entangled(i, "hull", hull.rows, hull.weights, apart * (1 + 2.0**-20) + slack)
        for i, apart in zip(positions, far, strict=True)
    ]


def _only(row: int) -> Hull:
    return Hull(torch.tensor([row]), torch.ones(1, dtype=torch.float64))


def _proven(
    u: Float[Tensor, "gates features"],
    own: Float[Tensor, " gates"],
    best: Float[Tensor, " gates"],
    z: Float[Tensor, "gates features"],
    retained: Float[Tensor, "rows features"],
    reach: Float[Tensor, " features"],
) -> tuple[Tensor, Tensor, list[bool]]:
    """Gates rounded to float32, and whether each is open and shut beyond any rounding error."""
    apart = own > best
    safe = torch.where(apart, best, own - 1.0)
    weight, bias = opened_between(u, own, safe)
    usable = apart & torch.isfinite(weight).all(1) & torch.isfinite(bias)
    weight = torch.where(usable[:, None], weight, 0.0).float()
    bias = torch.where(usable, bias, 0.0).float()
    wide, low = weight.double(), bias.double()
    steps = u.shape[1] + 2
    gamma = steps * _UNIT / (1 - steps * _UNIT)
    size = wide.abs()

    def error(values: Tensor) -> Tensor:
        return gamma * ((size * values.abs()).sum(1) + low.abs()) + 1e-30

    opens = (wide * z).sum(1) + low - error(z) >= 1.0
    shut = best_scores(wide, retained) + low + error(reach) <= 0.0
    return weight, bias, (usable & opens & shut).tolist()
