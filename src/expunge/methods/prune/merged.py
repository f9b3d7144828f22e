"""The merged form tried: an edit of the head alone, what it proves, what it costs on tune rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from expunge.certificate.bounds import enclose
from expunge.certificate.facts import RecordEvidence
from expunge.methods.prune.evidence import Seen, network_as_is
from expunge.methods.prune.merging import merge
from expunge.methods.prune.shifts import Claimed, bound_of
from expunge.network.heads import Head, head_matrix, set_head_matrix

__all__ = ["Attempt", "attempt_merge"]

FLOOR = 0.5
"""Retained margins stay at least this, or what they were, in logits."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An edited copy of the model, the claims that hold, and what it cost on tune rows.

    `tune_change` is the change of tune accuracy in points. `finished` is False where the time ran
    out. `earlier_hold` says whether every record of earlier requests keeps its claim.
    """

    model: nn.Module
    claimed: Mapping[int, Claimed]
    tune_change: float
    finished: bool
    earlier_hold: bool
    seconds: float


def attempt_merge(
    model: nn.Module,
    head: Head,
    mine: Seen,
    labels: Int[Tensor, " records"],
    targets: Float[Tensor, "records classes"],
    chosen: list[int],
    kept: Seen,
    kept_labels: Int[Tensor, " rows"],
    tune: Seen,
    tune_labels: Int[Tensor, " tune"],
    earlier: Sequence[RecordEvidence],
    *,
    tolerance: float,
    seconds: float,
) -> Attempt:
    """Solve for the least change of the head that serves the records at `chosen`.

    The given model is not touched.
    """
    past = [r for r in earlier if r.target is not None]
    rows = [mine.features[chosen], *(torch.from_numpy(r.row)[None] for r in past)]
    every = torch.cat(rows)
    truth = torch.cat([labels[chosen], torch.tensor([r.label for r in past], dtype=torch.int64)])
    goals = [targets[chosen], *(torch.from_numpy(np.asarray(r.target))[None] for r in past)]
    wanted = torch.cat(goals)
    retained = _with_one(kept.features)
    found = merge(
        head_matrix(model, head),
        _with_one(every),
        truth,
        wanted,
        retained,
        kept_labels,
        tolerance=float(tolerance),
        floor=FLOOR,
        seconds=float(seconds),
        has_bias=head.has_bias,
        metric=retained.T @ retained / len(retained),
    )
    edited = copy.deepcopy(model)
    set_head_matrix(edited, head, found.matrix)
    n = len(chosen)
    bounds = [tolerance] * n + [r.tolerance for r in past]
    holds = _margins_hold(edited, head, every.numpy(), truth, wanted, bounds)
    with torch.no_grad():
        logits = head.of(edited)(tune.features.to(head.of(edited).weight)).cpu()
    change = (logits.argmax(1) == tune_labels).double().mean() - (
        (tune.logits.argmax(1) == tune_labels).double().mean()
    )
    return Attempt(
        model=edited,
        claimed={
            i: Claimed("margin", tolerance)
            for i, held in zip(chosen, holds[:n], strict=True)
            if held
        },
        tune_change=100.0 * float(change),
        finished=found.finished,
        earlier_hold=all(holds[n:]),
        seconds=found.seconds,
    )


def _with_one(features: Float[Tensor, "rows features"]) -> Float[Tensor, "rows columns"]:
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)


def _margins_hold(
    model: nn.Module,
    head: Head,
    rows: NDArray[np.float32],
    labels: Tensor,
    targets: Tensor,
    bounds: Sequence[float],
) -> list[bool]:
    """Whether each runner-up margin lies within its bound of the target's, in any float32 order."""
    found = enclose(network_as_is(model, head), rows)
    return [
        bound_of(
            "margin",
            label,
            targets[i].numpy(),
            found.logits[i],
            found.logit_errors[i],
            bounds[i],
        )
        == bounds[i]
        for i, label in enumerate(labels.tolist())
    ]
