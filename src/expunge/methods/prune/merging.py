"""PRUNE, merged: the smallest edit of the head alone that gives records their wanted margins.

A patch with a gate per record is a branch that can be stripped off and an oracle for membership;
a changed weight matrix is neither. All that is asked is linear in the head A = [W, b]: a record's
margin over its runner-up comes near its target's, and no retained row that was right falls below
its floor. So the edit is one convex quadratic programme, and as few of the retained rows ever
bind, it is solved on growing working sets of them.

    min_Δ ½ tr(Δ M Δᵀ) + c Σ slack,   A' = A + Δ,  m* = ℓ*_y − ℓ*_{j*},  j* = argmax_{j≠y} ℓ*_j
    records    (A'_y − A'_{j*})·h̃ ≤ m* + ρ',  (A'_y − A'_j)·h̃ ≥ m* − ρ'  for all j ≠ y
    retained   (A'_y − A'_j)·h̃ ≥ min(old margin to j, floor)            for all j ≠ y

Goal: PRUNE (arXiv 2505.06520). Least modification of the last layer: Goldberger, Katz, Adi and
Keshet, LPAR 2020, who search with a verifier; for points in feature space convex constraints are
all that is left of it. What we do differently: a metric M measures the edit (the Gram matrix of
the retained rows: least change of their logits); every constraint has a slack whose linear
penalty c is exact, so that an impossible record is reported instead of making the programme
infeasible; ρ' leaves room for float32 weights and sums; and the head returned is the rounded one,
so that what fits is read off it, never off the solver's status.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

import clarabel
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

__all__ = ["Asked", "Held", "Merged", "merge"]

_PENALTY = 1e5  # of a unit of slack, where moving one record's margin by one costs about ¼
_RIDGE = 1e-6  # added to M, relative to its mean diagonal
_ALLOWED = 1e-4  # a retained margin this little below its floor is no violation
_PER_ROUND = 500  # retained rows whose worst margin joins the working set in one round
_UNIT = 2.0**-24  # relative rounding error of float32


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """Records h̃ = [h; 1], their labels, and the target logits whose margins they shall get."""

    rows: Float[Tensor, "records columns"]
    labels: Int[Tensor, " records"]
    targets: Float[Tensor, "records classes"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """Retained rows h̃ = [h; 1] and their labels; they shall keep their margins up to a floor."""

    rows: Float[Tensor, "retained columns"]
    labels: Int[Tensor, " retained"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """An edited head A' = [W', b'], float32 values in float64; the head itself if none was found.

    `finished` is False if the time ran out, or the solver gave up, before every floor had been seen
    to: `matrix` is then that of the last programme solved, and may break floors. Whether a record's
    margin fits is to be read off `matrix`.
    """

    matrix: Float[Tensor, "classes columns"]
    seconds: float
    finished: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cuts:
    """Constraints sign·(Z_own − Z_other)·w ≤ bound + slack, in whitened coordinates."""

    rows: Float[Tensor, "cuts columns"]
    own: Int[Tensor, " cuts"]
    other: Int[Tensor, " cuts"]
    sign: Float[Tensor, " cuts"]
    bound: Float[Tensor, " cuts"]

    def __add__(self, more: _Cuts) -> _Cuts:
        return _Cuts(
            rows=torch.cat([self.rows, more.rows]),
            own=torch.cat([self.own, more.own]),
            other=torch.cat([self.other, more.other]),
            sign=torch.cat([self.sign, more.sign]),
            bound=torch.cat([self.bound, more.bound]),
        )


def _margins(
    logits: Float[Tensor, "rows classes"], labels: Int[Tensor, " rows"]
) -> Float[Tensor, "rows classes"]:
    """ℓ_y − ℓ_j for every class j; +∞ at j = y."""
    own = labels[:, None]
    return (logits.gather(1, own) - logits).scatter(1, own, torch.inf)


def _whitener(
    metric: Float[Tensor, "columns columns"], records: Float[Tensor, "records columns"]
) -> Float[Tensor, "columns columns"]:
    """T with Δ = Z T and w = T h̃: the cost is ½‖Z‖² up to scale, and records have ‖w‖² ≈ 1."""
    identity = torch.eye(len(metric), dtype=metric.dtype)
    factor = torch.linalg.cholesky(metric + _RIDGE * metric.diagonal().mean() * identity)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    size = float((records @ inverse.T).square().sum(1).mean().sqrt())
    return inverse / size if size > 0 else inverse  # not if there are no records


def _room(
    head: Float[Tensor, "classes columns"], records: Asked, tolerance: float
) -> Float[Tensor, " records"]:
    """ρ': the tolerance less what float32 weights and sums in any order can move a margin by.

    A' is not known yet: twice the bound for A is taken off, and at most half of the tolerance.
    """
    sizes = records.rows.abs() @ head.abs().T
    largest = sizes.gather(1, records.labels[:, None])[:, 0] + sizes.amax(1)
    lost = 2 * (head.shape[1] + 2) * _UNIT * largest
    return tolerance - lost.clamp_max(0.5 * tolerance)


def _record_cuts(
    rows: Float[Tensor, "records columns"],
    records: Asked,
    margins: Float[Tensor, "records classes"],
    room: Float[Tensor, " records"],
) -> _Cuts:
    """The cuts of the records; `rows` are theirs in whitened coordinates."""
    labels = records.labels
    wanted, runner_up = _margins(records.targets, labels).min(1)
    record, other = torch.isfinite(margins).nonzero(as_tuple=True)
    below = _Cuts(
        rows=rows,
        own=labels,
        other=runner_up,
        sign=torch.ones_like(room),
        bound=wanted + room - margins.gather(1, runner_up[:, None])[:, 0],
    )
    return below + _Cuts(
        rows=rows[record],
        own=labels[record],
        other=other,
        sign=-torch.ones_like(room[record]),
        bound=margins[record, other] - (wanted - room)[record],
    )


def _solve(cuts: _Cuts, classes: int, seconds: float) -> Float[Tensor, "classes columns"] | None:
    """argmin_Z ½‖Z‖² + c Σ slack under the cuts; None if it was not solved in time."""
    count, columns = cuts.rows.shape
    size = classes * columns
    values = (cuts.sign[:, None] * cuts.rows).numpy().ravel()
    row = np.repeat(np.arange(count), columns)
    within = np.tile(np.arange(columns), count)
    column = [np.repeat(c.numpy(), columns) * columns + within for c in (cuts.own, cuts.other)]
    slack = np.arange(count)
    one = np.ones(count)
    constraints = sparse.csc_matrix(
        (
            np.concatenate([values, -values, -one, -one]),
            (
                np.concatenate([row, row, slack, count + slack]),
                np.concatenate([*column, size + slack, size + slack]),
            ),
        ),
        shape=(2 * count, size + count),
    )
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.time_limit = seconds
    settings.direct_solve_method = "qdldl"  # one thread: the same bytes every time
    solution = clarabel.DefaultSolver(
        sparse.diags(np.repeat([1.0, 0.0], [size, count]), format="csc"),
        np.repeat([0.0, _PENALTY], [size, count]),
        constraints,
        np.concatenate([cuts.bound.numpy(), np.zeros(count)]),
        [clarabel.NonnegativeConeT(2 * count)],
        settings,
    ).solve()
    if solution.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        return None
    return torch.tensor(solution.x[:size], dtype=torch.float64).view(classes, columns)


def merge(
    head: Float[Tensor, "classes columns"],
    records: Asked,
    retained: Held,
    *,
    metric: Float[Tensor, "columns columns"],
    free: int,
    tolerance: float,
    floor: float,
    seconds: float,
) -> Merged:
    """The least change of the head that brings each record's margin to its target's ± `tolerance`.

    The first `free` columns of the head [W, b] may change (all but the last without a bias), which
    `metric` measures. Retained rows that were right keep min(old margin, `floor`) to every class
    wherever possible; those that were wrong are free. Same input, same bytes, unless the time
    (`seconds`, checked before and during each solve) ran out.
    """
    began = time.perf_counter()
    edited, finished = head.clone(), len(records.rows) == 0
    old = _margins(retained.rows @ head.T, retained.labels)
    floors = old.clamp_max(floor)
    settled = (old.amin(1) <= 0)[:, None].repeat(1, len(head))  # wrong before, or a cut already
    whiten = _whitener(metric[:free, :free], records.rows[:, :free])
    cuts = _record_cuts(
        records.rows[:, :free] @ whiten.T,
        records,
        _margins(records.rows @ head.T, records.labels),
        _room(head, records, tolerance),
    )
    while not finished and (left := seconds - (time.perf_counter() - began)) > 0:
        change = _solve(cuts, len(head), left)
        if change is None:
            break
        exact = head.clone()
        exact[:, :free] += change @ whiten
        edited[:, :free] = exact[:, :free].float().double()
        shortfall = floors - _margins(retained.rows @ exact.T, retained.labels)
        worst, other = shortfall.masked_fill(settled, -torch.inf).max(1)
        row = worst.topk(min(_PER_ROUND, len(worst))).indices
        row = row[worst[row] > _ALLOWED]
        other, finished = other[row], len(row) == 0
        settled[row, other] = True
        cuts += _Cuts(
            rows=retained.rows[row, :free] @ whiten.T,
            own=retained.labels[row],
            other=other,
            sign=-torch.ones_like(worst[row]),
            bound=(old - floors)[row, other],
        )
    return Merged(matrix=edited, seconds=time.perf_counter() - began, finished=finished)
