"""Target logits of records: what the patched model shall say where a gate is open.

`unseen`: as a random row of the record's class that the model never saw, moved a little within its
neighbourhood, so that the whole distribution matches, errors included. `mispredict`: the runner-up
leads the record's own label, by the change of least norm.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expunge.errors import TaskError

__all__ = ["draw_targets", "forced_errors"]

_NEIGHBOURS = 5


def draw_targets(
    labels: Int[Tensor, " records"],
    tune_logits: Float[Tensor, "tune classes"],
    tune_labels: Int[Tensor, " tune"],
    *,
    jitter: float,
    generator: torch.Generator,
) -> Float[Tensor, "records classes"]:
    """Target logits: for each record those of a random tune row of its class, moved a little.

    Rows are drawn without replacement until a class is used up, then again. Each is moved by
    t·(neighbour − row), t uniform in ±`jitter`, towards or away from one of its 5 nearest tune rows
    of the class: never a mean of rows, which would make the records too easy. Raises TaskError
    where no tune row has the class of a record.
    """
    targets = torch.empty(len(labels), tune_logits.shape[1], dtype=torch.float64)
    for label in labels.unique().tolist():
        pool = tune_logits[tune_labels == label].double()
        wanted = (labels == label).nonzero().flatten()
        if not len(pool):
            raise TaskError(
                f"Expected holdout rows of class {label} to draw targets from, got none in the "
                'tune half. Give a larger holdout, or `spec="mispredict"`.'
            )
        rounds = -(-len(wanted) // len(pool))
        order = torch.cat([torch.randperm(len(pool), generator=generator) for _ in range(rounds)])
        rows = order[: len(wanted)]
        targets[wanted] = pool[rows] + _moves(pool, rows, jitter, generator)
    return targets


def _moves(pool: Tensor, rows: Tensor, jitter: float, generator: torch.Generator) -> Tensor:
    near = min(_NEIGHBOURS, len(pool) - 1)
    share = (2 * torch.rand(len(rows), generator=generator, dtype=torch.float64) - 1) * jitter
    pick = torch.randint(max(near, 1), (len(rows),), generator=generator)
    if near == 0:
        return torch.zeros(len(rows), pool.shape[1], dtype=torch.float64)
    distance = torch.cdist(pool[rows], pool)
    distance[torch.arange(len(rows)), rows] = torch.inf
    neighbours = torch.topk(distance, near, largest=False).indices
    chosen = neighbours[torch.arange(len(rows)), pick]
    return share[:, None] * (pool[chosen] - pool[rows])


def forced_errors(
    logits: Float[Tensor, "records classes"], labels: Int[Tensor, " records"], lead: float
) -> Float[Tensor, "records classes"]:
    """The logits nearest to these in which the runner-up leads the label by `lead`, or more."""
    wide = logits.double()
    own = wide.gather(1, labels[:, None])
    best, runner = wide.scatter(1, labels[:, None], -torch.inf).max(1, keepdim=True)
    move = ((own - best + lead) / 2).clamp_min(0.0)
    return wide.scatter_add(1, runner, move).scatter_add(1, labels[:, None], -move)
