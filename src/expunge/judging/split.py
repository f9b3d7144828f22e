"""The split of the holdout into `tune` and `judge`, without rows that the model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, final

import torch

from expunge.data.digests import content_digests, digested
from expunge.data.rows import Rows
from expunge.errors import TaskError

__all__ = ["Repeats", "Split", "clean_holdout", "refuse_repeats", "split_holdout", "tune_and_judge"]


Repeats = Literal["error", "expected"]
"""What many holdout rows are that are also training rows: a mistake, or known beforehand."""

_MOST = 0.01
"""The share of a holdout that may also be in other rows before it is an error."""


def clean_holdout(holdout: Rows, forget: Sequence[Rows]) -> tuple[Rows, int]:
    """Drop holdout rows whose content is also in a forget set; above 1 % is an error."""
    fresh = _without(holdout, _contents(forget))
    dropped = len(holdout) - len(fresh)
    if dropped > _MOST * len(holdout):
        raise TaskError(
            f"Expected a holdout of rows never trained on, but {dropped} of {len(holdout)} of its "
            "rows are also in the forget set (more than 1 %). Use data the model has not seen."
        )
    return fresh, dropped


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """The holdout in its two halves, None without one, and how many of its rows were left out.

    `dropped` are also in a forget set, `repeats` among the training rows that stay: None where
    these were not compared.
    """

    tune: Rows | None = None
    judge: Rows | None = None
    dropped: int = 0
    repeats: int | None = None


def tune_and_judge(
    holdout: Rows, forget: Sequence[Rows], seed: int | None, retain: Rows | None = None
) -> Split:
    """Split the whole holdout, then drop from each part what is also in a forget set or `retain`.

    In this order a row never changes sides, whatever is forgotten later. Raises TaskError where
    more than 1 % of it is also in a forget set.
    """
    rows, gone = digested(holdout), [digested(part) for part in forget]
    fresh, dropped = clean_holdout(rows, gone)
    known = _contents(gone if retain is None else [*gone, retain])
    repeats = None if retain is None else len(fresh) - len(_without(fresh, known))
    tune, judge = (_without(part, known) for part in split_holdout(rows, seed))
    return Split(tune=tune, judge=judge, dropped=dropped, repeats=repeats)


def refuse_repeats(split: Split, holdout: Rows, repeats: Repeats) -> None:
    """Raise TaskError where rows that were trained on are too many, or all that there is."""
    found = split.repeats or 0
    if repeats == "error" and found > _MOST * len(holdout):
        raise TaskError(
            f"Expected a holdout of rows never trained on, but {found} of {len(holdout)} of its "
            "rows are also among the training rows that stay (more than 1 %). Give rows never "
            'trained on; or, where such repeats are natural in your data, say `repeats="expected"` '
            "([data] in a job): then they leave the holdout."
        )
    if found and found + split.dropped == len(holdout):
        raise TaskError(
            f"Expected a holdout with rows never trained on, but all {len(holdout)} of its rows "
            "were. Give rows never trained on, or no holdout: then the outcome stays open."
        )


def split_holdout(holdout: Rows, seed: int | None = None) -> tuple[Rows, Rows]:
    """Split once into (tune, judge): half of the contents of each class, by their own hash.

    With an odd number the extra content goes to judge. Neither ids, nor the order of the rows, nor
    a seed decide; rows of one class with the same content lie on one side. A row added to a class,
    or taken away, moves at most one other content across. With a `seed`, as runs of record version
    1 did it, rows are ranked by the hash of seed and record id.
    """
    rank = content_digests(holdout) if seed is None else _seeded(holdout.ids, seed)
    chosen = torch.zeros(len(holdout), dtype=torch.bool)
    for label in holdout.labels.unique().tolist():
        members = (holdout.labels == label).nonzero().flatten().tolist()
        order = sorted({rank[i] for i in members})
        first = set(order[: len(order) // 2])
        tune = [i for i in members if rank[i] in first]
        chosen[torch.tensor(tune, dtype=torch.int64)] = True
    return (
        holdout.select(chosen.nonzero().flatten()),
        holdout.select((~chosen).nonzero().flatten()),
    )


def _seeded(ids: Sequence[str], seed: int) -> Sequence[bytes]:
    return [hashlib.sha256(f"{seed}\0{i}".encode()).digest() for i in ids]


def _contents(parts: Sequence[Rows]) -> frozenset[bytes]:
    """The content of every row in these parts."""
    return frozenset(digest for rows in parts for digest in content_digests(rows))


def _without(rows: Rows, known: AbstractSet[bytes]) -> Rows:
    """The rows whose content is not known."""
    fresh = [i for i, digest in enumerate(content_digests(rows)) if digest not in known]
    return rows if len(fresh) == len(rows) else rows.select(torch.tensor(fresh).long())
