"""From features to gates that are proven shut and open: closed form first, then linear programs.

What the method PRUNE needs between pure mathematics and the model: gates are accepted only with
slack above the rounding error of any float32 evaluation, so that the checker will accept them too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expunge.methods.prune.gates import (
    Whitening,
    best_scores,
    directions,
    opened_between,
    whiten,
)
from expunge.methods.prune.separate import Hull, separate
from expunge.methods.prune.twins import Twins

__all__ = ["Entangled", "Fitted", "Reason", "fit_gates"]

_UNIT = 2.0**-24
_LOOSE = 2.0**-13
_PROGRAMS = "separating records by linear programs"
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
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """Gates `u` (P, d) and `c` (P,) in float32, and which forget rows each one serves.

    `served[p]` are the positions of the records of gate p (several only where their content or
    their features are equal). `by_program` counts the gates that the linear program found, in
    `program_seconds`.
    """

    u: Float[Tensor, "gates features"]
    c: Float[Tensor, " gates"]
    served: list[list[int]]
    entangled: list[Entangled]
    by_program: int
    program_seconds: float

    def without(self, gates: Sequence[int]) -> Fitted:
        """The others; the records of these are entangled, by nothing but rounding."""
        stay = [p for p in range(len(self.served)) if p not in set(gates)]
        return dataclasses.replace(
            self,
            u=self.u[stay],
            c=self.c[stay],
            served=[self.served[p] for p in stay],
            entangled=[*self.entangled, *(e for p in gates for e in _unproven(self.served[p]))],
        )


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Ground:
    """Rows on which every gate must be shut, and the largest size of each of their features."""

    rows: Float[Tensor, "rows features"]
    reach: Float[Tensor, " features"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Gates:
    """Gates rounded to float32, and whether each is open and shut beyond any rounding error."""

    u: Float[Tensor, "gates features"]
    c: Float[Tensor, " gates"]
    proven: list[bool]


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
    groups, lost = _groups(records, labels, kept, twins)
    z = records[torch.tensor([g[0] for g in groups], dtype=torch.int64)].double()
    if not groups:
        return _chosen({}, z, groups, lost)
    shut_on = torch.cat([kept, past]) if len(past) else kept
    ground = _Ground(shut_on, shut_on.abs().amax(0).double())
    white = whiten(ground.rows, ridge)
    closed = _sized(directions(white, z), z, ground)
    hard = [p for p, proven in enumerate(closed.proven) if not proven]
    began = time.perf_counter()
    programs = _by_program(white, z, hard, ground, nearest, report)
    seconds = time.perf_counter() - began if hard else 0.0
    easy = {p: (closed.u[p], closed.c[p]) for p, good in enumerate(closed.proven) if good}
    late = {
        p: (answer.u[0], answer.c[0])
        for p, answer in programs.items()
        if isinstance(answer, _Gates) and answer.proven[0]
    }
    hulls = [
        entry
        for p, answer in programs.items()
        if p not in late
        for entry in _entangled(
            groups[p], answer if isinstance(answer, Hull) else None, records, kept
        )
    ]
    gates = easy | late
    found = _chosen(gates, z, groups, lost + hulls, by_program=len(late), seconds=seconds)
    return _without_overlaps(found, z, z[torch.tensor(sorted(gates), dtype=torch.int64)], ground)


def _chosen(
    gates: dict[int, tuple[Tensor, Tensor]],
    z: Tensor,
    groups: list[list[int]],
    lost: list[Entangled],
    *,
    by_program: int = 0,
    seconds: float = 0.0,
) -> Fitted:
    """The gates in the order of their records."""
    order = sorted(gates)
    return Fitted(
        u=torch.stack([gates[p][0] for p in order]) if order else torch.zeros(0, z.shape[1]),
        c=torch.stack([gates[p][1] for p in order]) if order else torch.zeros(0),
        served=[groups[p] for p in order],
        entangled=lost,
        by_program=by_program,
        program_seconds=seconds,
    )


def _by_program(
    white: Whitening,
    z: Float[Tensor, "gates features"],
    hard: Sequence[int],
    ground: _Ground,
    nearest: int,
    report: Callable[[str, int, int], None],
) -> dict[int, _Gates | Hull]:
    """A gate by linear program for each of the records at `hard`, or the hull that forbids it."""
    found: dict[int, _Gates | Hull] = {}
    if not hard:
        return found
    whitened = white(ground.rows)
    squares = whitened.square().sum(1)
    for done, p in enumerate(hard):
        report(_PROGRAMS, done, len(hard))
        v = separate(white, white(z[p][None])[0], whitened, squares, first=nearest)
        found[p] = v if isinstance(v, Hull) else _sized(v[None], z[p][None], ground)
    report(_PROGRAMS, len(hard), len(hard))
    return found


def _without_overlaps(found: Fitted, z: Tensor, own_rows: Tensor, ground: _Ground) -> Fitted:
    """Raise the thresholds of gates that open on other forget rows, where the proof allows it."""
    v = found.u.double()
    scores = z @ v.T
    own = (own_rows * v).sum(1)
    other = torch.where(scores < own[None] - 1e-9, scores, -torch.inf).amax(0)
    touching = (other + found.c.double() > 0).nonzero().flatten()
    if not len(touching):
        return found
    best = torch.maximum(best_scores(v[touching], ground.rows), other[touching])
    later = _proven(v[touching], own[touching], best, own_rows[touching], ground)
    good = torch.tensor(later.proven, dtype=torch.bool)
    u, c = found.u.clone(), found.c.clone()
    u[touching[good]] = later.u[good]
    c[touching[good]] = later.c[good]
    return dataclasses.replace(found, u=u, c=c)


def _unproven(positions: Sequence[int]) -> list[Entangled]:
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
    return best if shown else _unproven(positions)


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


def _sized(
    v: Float[Tensor, "gates features"], z: Float[Tensor, "gates features"], ground: _Ground
) -> _Gates:
    """Gates along v, one for each record z."""
    return _proven(v, (v * z).sum(1), best_scores(v, ground.rows), z, ground)


def _proven(
    v: Float[Tensor, "gates features"],
    own: Float[Tensor, " gates"],
    best: Float[Tensor, " gates"],
    z: Float[Tensor, "gates features"],
    ground: _Ground,
) -> _Gates:
    """Gates along v that open between `best` and `own`, with the proof for any float32 order."""
    apart = own > best
    exact_u, exact_c = opened_between(v, own, torch.where(apart, best, own - 1.0))
    usable = apart & torch.isfinite(exact_u).all(1) & torch.isfinite(exact_c)
    u = torch.where(usable[:, None], exact_u, 0.0).float()
    c = torch.where(usable, exact_c, 0.0).float()
    wide, low = u.double(), c.double()
    steps = v.shape[1] + 2
    gamma = steps * _UNIT / (1 - steps * _UNIT)
    size = wide.abs()

    def error(values: Tensor) -> Tensor:
        return gamma * ((size * values.abs()).sum(1) + low.abs()) + 1e-30

    opens = (wide * z).sum(1) + low - error(z) >= 1.0
    shut = best_scores(wide, ground.rows) + low + error(ground.reach) <= 0.0
    return _Gates(u, c, (usable & opens & shut).tolist())
