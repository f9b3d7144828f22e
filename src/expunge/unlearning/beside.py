"""What is read beside the stored rows: retrained models, and for records copies and rows that stay.

A noisy copy of each row, and the views that the user named, tell a model that has forgotten from
one that answers from a table; rows that stay tell whether the records are like others at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.data.copies import noisy, spread_of, viewed
from expunge.data.rows import Rows
from expunge.errors import ModelError
from expunge.judging.independence import agreement_of, chosen_retained, seen_auc, standing_of
from expunge.judging.outputs import Beside, Outputs, Sight
from expunge.network.passes import logits_of
from expunge.network.placed import placed
from expunge.network.state import digest_of, hook_count, state_of
from expunge.records import Standing
from expunge.results.read import Reading
from expunge.results.references import refuse_known_class
from expunge.results.unlearned import Unlearned
from expunge.unlearning.request import Request, Seen
from expunge.unlearning.served import Served

__all__ = ["beside_of", "seen_beside", "unverified"]


_SEED = 0
"""Which noise, and which rows that stay: the same for every run, so that none can be picked."""


@final
@dataclass(frozen=True, slots=True)
class _Copy:
    """The forget and the judge rows, changed alike."""

    forget: Rows
    judge: Rows


def seen_beside(request: Request, copied: nn.Module, stored: Outputs) -> Seen:
    """Read with the given model, and with each reference; nothing is edited yet.

    `stored` is what the given model answers on the stored rows. Raises ModelError for references
    that know the class, or have other outputs.
    """
    judge = request.split.judge
    if judge is None:
        return Seen()
    records = request.task.scope == "records"
    references = [
        _reference(request, n, one, judge, stored) for n, one in enumerate(request.task.references)
    ]
    independent = [one for one in references if one.standing.level == "C1"]
    copies = _copies(request, judge) if records else {}
    stays = _some_that_stay(request) if records else None
    asked = stays if "retain" in request.needs else None
    return Seen(
        readings=tuple(one.reading for one in references),
        standing=tuple(one.standing for one in references),
        copies={name: _all(request, copied, made) for name, made in copies.items()},
        by_references={
            name: tuple(_all(request, one.placed, made) for one in independent)
            for name, made in copies.items()
        },
        stays=stays,
        retained=None if asked is None else _logits(request, copied, asked),
    )


@final
@dataclass(frozen=True, slots=True)
class _Reference:
    """A retrained model where it is read, what it said, and what shows that it is one."""

    placed: nn.Module
    reading: Reading
    standing: Standing


def _reference(
    request: Request, number: int, given: Any, judge: Rows, stored: Outputs
) -> _Reference:
    task, name = request.task, f"reference {number}"
    own = given.model if isinstance(given, Unlearned) else given
    model = placed(own, request.means.device)
    outputs = _read(request, model, _Copy(task.forget, judge))
    if outputs.forget.shape != stored.forget.shape:
        raise ModelError(
            f"Expected {name} to give {stored.forget.shape[1]} logits a row as the model does, got "
            f"{outputs.forget.shape[1]}. Retrain with the original's number of outputs."
        )
    refuse_known_class(name, task, outputs.forget, task.forget.labels, request.means.limits)
    agree = seen = logits = None
    if task.scope == "classes" and outputs.judge is not None and stored.judge is not None:
        rest = ~torch.isin(judge.labels, torch.tensor(sorted(task.gone)))
        agree = agreement_of(outputs.judge[rest], stored.judge[rest], task.gone)
    stays = _some_that_stay(request) if task.scope == "records" else None
    if stays is not None:
        logits = _logits(request, model, stays)
        seen = seen_auc(outputs.forget, task.forget.labels, logits, stays.labels)
    standing = standing_of(
        model,
        request.model,
        name=name,
        scope=task.scope,
        initial=request.means.initial,
        agree=agree,
        seen=seen,
    )
    reading = Reading(
        model=own,
        digest=digest_of(state_of(own)),
        hooks=hook_count(own),
        outputs=outputs,
        stays=logits,
    )
    return _Reference(model, reading, standing)


def unverified(seen: Seen) -> tuple[str, ...]:
    """A note where some references are not shown to be independent."""
    count = sum(one.level != "C1" for one in seen.standing)
    if not count:
        return ()
    note = f"{count} of {len(seen.standing)} references are not shown to be independent"
    return (f"{note} (level unverified) and took no part in the outcome",)


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
        retained_labels=None if seen.stays is None else seen.stays.labels,
        reach=info.reach,
        trained_anew="training" in info.needs,
    )


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
    """Up to 500 rows that stay, of the records' classes; None where none are at hand."""
    stays = request.task.retain
    if stays is None:
        return None
    places = chosen_retained(stays.labels, request.task.forget.labels, _SEED)
    return stays.select(places) if len(places) else None


def _all(request: Request, model: nn.Module, copies: Sequence[_Copy]) -> tuple[Outputs, ...]:
    return tuple(_read(request, model, copy) for copy in copies)


def _read(request: Request, model: nn.Module, copy: _Copy) -> Outputs:
    return Outputs(
        forget=_logits(request, model, copy.forget), judge=_logits(request, model, copy.judge)
    )


def _logits(request: Request, model: nn.Module, rows: Rows) -> Float[Tensor, "rows classes"]:
    size, device = request.means.batch_size, request.means.device
    return logits_of(model, rows, batch_size=size, device=device)
