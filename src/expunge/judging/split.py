"""The split of the holdout into `tune` and `judge`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from expunge.data.digests import content_digests
from expunge.data.rows import Rows
from expunge.errors import TaskError

__all__ = ["Split", "clean_holdout", "split_holdout", "tune_and_judge"]


def clean_holdout(holdout: Rows, forget: Sequence[Rows]) -> tuple[Rows, int]:
    """Drop holdout rows whose content is also in a forget set; above 1 % is an error."""
    known = {digest for rows in forget for digest in content_digests(rows)}
    fresh = [i for i, d in enumerate(content_digests(holdout)) if d not in known]
    dropped = len(holdout) - len(fresh)
    if dropped > 0.01 * len(holdout):
        raise TaskError(
            f"Expected a holdout of rows never trained on, but {dropped} of {len(holdout)} of its "
            "rows are also in the forget set (more than 1 %). Use data the model has not seen."
        )
    return (holdout.select(torch.tensor(fresh, dtype=torch.int64)) if dropped else holdout), dropped


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """The holdout in its two halves, None without one, and how many of its rows were left out."""

    tune: Rows | None = None
    judge: Rows | None = None
    dropped: int = 0


def tune_and_judge(holdout: Rows, forget: Sequence[Rows], seed: int) -> Split:
    """Split the whole holdout, then drop from each part what is also in a forget set.

    In this order a row never changes sides, whatever is forgotten later.
    """
    fresh, dropped = clean_holdout(holdout, forget)
    tune, judge = split_holdout(holdout, seed)
    if dropped:
        known = set(fresh.ids)
        tune, judge = (
            part.select(torch.tensor([n for n, i in enumerate(part.ids) if i in known]).long())
            for part in (tune, judge)
        )
    return Split(tune=tune, judge=judge, dropped=dropped)


def split_holdout(holdout: Rows, seed: int) -> tuple[Rows, Rows]:
    """Split once into (tune, judge): half of each class, by the hash of seed and record id.

    The same holdout and seed give the same parts, whatever the order of the rows. With an odd
    number the extra row goes to judge.
    """
    rank = [hashlib.sha256(f"{seed}\0{i}".encode()).digest() for i in holdout.ids]
    tune: list[int] = []
    for label in holdout.labels.unique().tolist():
        members = (holdout.labels == label).nonzero().flatten().tolist()
        members.sort(key=lambda i: rank[i])
        tune += members[: len(members) // 2]
    chosen = torch.zeros(len(holdout), dtype=torch.bool)
    chosen[torch.tensor(tune, dtype=torch.int64)] = True
    return (
        holdout.select(chosen.nonzero().flatten()),
        holdout.select((~chosen).nonzero().flatten()),
    )
