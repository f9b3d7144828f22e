"""Target logits of records: what the patched model shall say where a gate is open.

`unseen`: as a random row of the record's class that the model never saw, moved a little within its
neighbourhood, so that the whole distribution matches, errors included. `mispredict`: the runner-up
leads the record's own label, by the change of least norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expunge.errors import TaskError

__all__ = [
    "Targets",
    "draw_targets",
    "forced_errors",
    "forced_targets",
    "refuse_untargeted",
    "unseen_targets",
]

_NEIGHBOURS = 5
_AHEAD = 1.25
"""Targets of forced errors lead by this much more than what is to be proven."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """Target logits ℓ* (R, K) of every record, how they were chosen, and what is to be proven.

    `bound` is the least ρ of |ℓ' − ℓ*|∞ ≤ ρ for `unseen`, the least lead for `mispredict`. `rule`
    says in words how they were chosen; `drawn_from` are the tune logits that they were drawn from.
    """

    logits: Float[Tensor, "records classes"]
    spec: Literal["unseen", "mispredict"]
    bound: float
    rule: str
    drawn_from: Float[Tensor, "tune classes"] | None

    def shared(self, groups: Iterable[Sequence[int]]) -> Targets:
        """The same, with one target for the records of each group: that of the first."""
        logits = self.logits.clone()
        for members in groups:
            logits[list(members)] = logits[members[0]].clone()
        return dataclasses.replace(self, logits=logits)


def unseen_targets(
    labels: Int[Tensor, " records"],
    tune_logits: Float[Tensor, "tune classes"],
    tune_labels: Int[Tensor, " tune"],
    *,
    jitter: float,
    bound: float,
    generator: torch.Generator,
) -> Targets:
    """Targets as of data never seen: `draw_targets`, with their rule."""
    return Targets(
        logits=draw_targets(labels, tune_logits, tune_labels, jitter=jitter, generator=generator),
        spec="unseen",
        bound=bound,
        rule="each target is the logits of a random tune row of the record's class, moved by "
        f"t (neighbour - row) with t uniform in +-{jitter:g} towards one of its 5 nearest tune "
        "rows",
        drawn_from=tune_logits,
    )


def forced_targets(
    logits: Float[Tensor, "records classes"], labels: Int[Tensor, " records"], *, margin: float
) -> Targets:
    """Targets of a forced error that leads by at least `margin`: `forced_errors`, with the rule."""
    lead = _AHEAD * margin
    return Targets(
        logits=forced_errors(logits, labels, lead),
        spec="mispredict",
        bound=margin,
        rule=f"each target lifts the runner-up above the record's own label by {lead:g}",
        drawn_from=None,
    )


def refuse_untargeted(labels: Int[Tensor, " records"], tune_labels: Int[Tensor, " tune"]) -> None:
    """Raise TaskError where no tune row has the class of a record."""
    for label in labels.unique().tolist():
        if not bool((tune_labels == label).any()):
            raise TaskError(
                f"Expected holdout rows of class {label} to draw targets from, got none in the "
                'tune half. Give a larger holdout, or `spec="mispredict"`.'
            )


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
    refuse_untargeted(labels, tune_labels)
    targets = torch.empty(len(labels), tune_logits.shape[1], dtype=torch.float64)
    for label in labels.unique().tolist():
        pool = tune_logits[tune_labels == label].double()
        wanted = (labels == label).nonzero().flatten()
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
