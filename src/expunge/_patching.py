"""From features to gates that are proven shut and open, to targets, and to the evidence of both.

What the method PRUNE needs between pure mathematics and the model: gates are accepted only with
slack above the rounding error of any float32 evaluation, so that the checker will accept them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expunge.errors import DataError
from expunge.functional.gates import (
    Hull,
    best_scores,
    directions,
    opened_between,
    separate,
    whiten,
)

__all__ = ["Entangled", "Fitted", "Reason", "alike", "fit_gates", "unproven"]

_UNIT = 2.0**-24
_LAST_BITS = 2.0**-14
_FEW = 16
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

    `served[p]` are the positions of the records of gate p (several only where their features are
    equal). `by_program` counts the gates that the linear program found.
    """

    weight: Float[Tensor, "gates features"]
    bias: Float[Tensor, " gates"]
    served: list[list[int]] = field(default_factory=list)
    entangled: list[Entangled] = field(default_factory=list)
    by_program: int = 0


def fit_gates(
    records: Float[Tensor, "records features"],
    labels: Int[Tensor, " records"],
    kept: Float[Tensor, "rows features"],
    past: Float[Tensor, "earlier features"],
    *,
    ridge: float,
    nearest: int,
    same: Callable[[int, int], bool],
    same_record: Callable[[int, int], bool],
    report: Callable[[str, int, int], None],
) -> Fitted:
    """One gate a distinct record: closed form first, the linear program where that fails.

    Gates are shut on what is kept and on `past`, the records of earlier requests. `same(i, r)` says
    whether record i and kept row r are one and the same input: read in other batches, their
    features may still differ in the last bits; `same_record(i, j)` the same of two records. Raises
    DataError for one input with two labels.
    """
    groups, colliding = _groups(records, labels, same_record)
    retained = torch.cat([kept, past]) if len(past) else kept
    first = torch.tensor([g[0] for g in groups])
    z = records[first.long()].double()
    found = Fitted(torch.zeros(0, z.shape[1]), torch.zeros(0))
    found.entangled += unproven(colliding)
    if not groups:
        return found
    reach = retained.abs().amax(0).double()
    white = whiten(retained, ridge)
    u = directions(white, z)
    best = best_scores(u, retained)
    weight, bias, good = _proven(u, (u * z).sum(1), best, z, retained, reach)
    hard = [p for p in range(len(groups)) if not good[p]]
    chosen: dict[int, tuple[Tensor, Tensor]] = {
        p: (weight[p], bias[p]) for p in range(len(groups)) if good[p]
    }
    whitened = white(retained) if hard else retained[:0].double()
    squares = whitened.square().sum(1)
    for done, p in enumerate(hard):
        report("separating records by linear programs", done, len(hard))
        twin = _twin(records[first[p]], kept, partial(same, groups[p][0]))
        if twin is not None:
            found.entangled += alike(
                groups[p], "identical", torch.tensor([twin]), torch.ones(1), 0.0
            )
            continue
        answer = separate(white, white(z[p][None])[0], whitened, squares, first=nearest)
        if isinstance(answer, Hull):
            mean = answer.weights @ retained[answer.rows].double()
            residual = float((mean - z[p]).abs().max()) * (1 + 2.0**-20) + 2.0**-40
            own = bool((answer.rows < len(kept)).all()) and len(answer.rows) > 0
            # else no witness that a checker would take: earlier records in it, or no solution
            witness = own and residual <= _LOOSE * float(z[p].abs().max())
            found.entangled += (
                alike(groups[p], "hull", answer.rows, answer.weights, residual)
                if witness
                else unproven(groups[p])
            )
            continue
        v = answer[None]
        w, c, ok = _proven(
            v, (v * z[p]).sum(1), best_scores(v, retained), z[p][None], retained, reach
        )
        if not ok[0]:
            found.entangled += unproven(groups[p])
            continue
        chosen[p] = (w[0], c[0])
        found.by_program += 1
    if hard:
        report("separating records by linear programs", len(hard), len(hard))
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


def alike(
    positions: list[int], reason: Reason, rows: Tensor, weights: Tensor, residual: float
) -> list[Entangled]:
    """One entry a record of equal features."""
    return [Entangled(p, reason, rows.long(), weights.double(), residual) for p in positions]


def unproven(positions: list[int]) -> list[Entangled]:
    """Records without a gate that holds beyond rounding, and without a witness."""
    nothing = torch.zeros(0)
    return alike(positions, "rounding", nothing, nothing, 0.0)


def _groups(
    records: Tensor, labels: Tensor, same_record: Callable[[int, int], bool]
) -> tuple[list[list[int]], list[int]]:
    """Positions of equal feature rows together, and those whose twins have another label.

    Raises DataError where such twins are one and the same input.
    """
    groups: dict[bytes, list[int]] = {}
    content = records.float().numpy()
    for position in range(len(records)):
        groups.setdefault(content[position].tobytes(), []).append(position)
    good, colliding = [], []
    for members in groups.values():
        other = next((m for m in members if labels[m] != labels[members[0]]), None)
        if other is None:
            good.append(members)
        elif same_record(members[0], other):
            raise DataError(
                f"Expected one label for one record, got labels {int(labels[members[0]])} and "
                f"{int(labels[other])} in the forget set for the same input. Correct the data, or "
                "forget only one of them."
            )
        else:
            colliding += members
    return good, colliding


def _twin(
    record: Float[Tensor, " features"],
    kept: Float[Tensor, "rows features"],
    same: Callable[[int], bool],
) -> int | None:
    """The kept row that is the same input as the record, if there is one among the nearest."""
    far = (kept - record).abs().amax(1)
    close = far <= _LAST_BITS * max(float(record.abs().max()), 1.0)
    return next((r for r in close.nonzero().flatten().tolist()[:_FEW] if same(r)), None)


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
