"""What is read beside the stored rows: retrained models, and for records copies and rows that stay.

A noisy copy of each row, and the views that the user named, tell a model that has forgotten from
one that answers from a table; rows that stay tell whether the records are like others at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.data.copies import noisy, spread_of, viewed
from expunge.data.rows import Rows
from expunge.judging.outputs import Beside, Outputs, Sight
from expunge.network.passes import logits_of
from expunge.network.placed import placed
from expunge.results.unlearned import Unlearned
from expunge.unlearning.request import Request, Seen
from expunge.unlearning.served import Served

__all__ = ["beside_of", "seen_beside"]


_MOST_RETAINED = 500
_SEED = 0
"""Which noise, and which rows that stay: the same for every run, so that none can be picked."""


@final
@dataclass(frozen=True, slots=True)
class _Copy:
    """The forget and the judge rows, changed alike."""

    forget: Rows
    judge: Rows


def seen_beside(request: Request, copied: nn.Module) -> Seen:
    """Read with the given model, and with each reference; nothing is edited yet."""
    task, judge = request.task, request.split.judge
    references = tuple(_module(reference) for reference in task.references)
    stored = tuple(
        _read(request, model, _Copy(task.forget, judge)) if judge is not None else None
        for model in references
    )
    answers = tuple(outputs for outputs in stored if outputs is not None)
    if task.scope != "records" or judge is None:
        return Seen(references=answers)
    copies = _copies(request, judge)
    stays = _some_that_stay(request)
    return Seen(
        references=answers,
        copies={name: _all(request, copied, made) for name, made in copies.items()},
        by_references={
            name: tuple(_all(request, model, made) for model in references)
            for name, made in copies.items()
        },
        retained=None if stays is None else _logits(request, copied, stays),
        retained_labels=None if stays is None else stays.labels,
    )


def beside_of(request: Request, seen: Seen, edited: nn.Module, served: Served) -> Beside:
    """What a judgement gets to see beside the stored rows, of the records that were served."""
    info, judge = request.method.info, request.split.judge
    copies = _copies(request, judge) if seen.copies and judge is not None else {}

    def part(outputs: Sequence[Outputs]) -> tuple[Outputs, ...]:
        return tuple(served.part(one) for one in outputs)

    return Beside(
        copies={
            name: Sight(
                before=part(seen.copies[name]),
                after=part(_all(request, edited, made)),
                references=tuple(part(one) for one in seen.by_references[name]),
            )
            for name, made in copies.items()
        },
        retained=seen.retained,
        retained_labels=seen.retained_labels,
        reach=info.reach,
        trained_anew="training" in info.needs,
    )


def _module(reference: nn.Module | Unlearned) -> nn.Module:
    return reference.model if isinstance(reference, Unlearned) else reference


def _copies(request: Request, judge: Rows) -> Mapping[str, tuple[_Copy, ...]]:
    """By name the changed copies of the rows, where their kind allows it."""
    forget, views = request.task.forget, request.task.views
    found: dict[str, tuple[_Copy, ...]] = {}
    spread = spread_of(judge)
    if spread is not None:
        found["noise"] = (_Copy(*(noisy(rows, spread, seed=_SEED) for rows in (forget, judge))),)
    if views is not None:
        pairs = zip(viewed(forget, views), viewed(judge, views), strict=True)
        found["views"] = tuple(_Copy(own, other) for own, other in pairs)
    return found


def _some_that_stay(request: Request) -> Rows | None:
    """Up to 500 rows that stay, where the method is handed them."""
    stays = request.task.retain
    if stays is None or "retain" not in request.needs:
        return None
    generator = torch.Generator().manual_seed(_SEED)
    return stays.select(torch.randperm(len(stays), generator=generator)[:_MOST_RETAINED])


def _all(request: Request, model: nn.Module, copies: Sequence[_Copy]) -> tuple[Outputs, ...]:
    return tuple(_read(request, model, copy) for copy in copies)


def _read(request: Request, model: nn.Module, copy: _Copy) -> Outputs:
    return Outputs(
        forget=_logits(request, model, copy.forget), judge=_logits(request, model, copy.judge)
    )


def _logits(request: Request, model: nn.Module, rows: Rows) -> Float[Tensor, "rows classes"]:
    size, device = request.means.batch_size, request.means.device
    return logits_of(placed(model, device), rows, batch_size=size, device=device)
