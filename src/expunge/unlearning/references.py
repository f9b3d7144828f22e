"""References at the door: read once on the rows of a request, and shown to be independent."""

from __future__ import annotations

import torch

from expunge.data.rows import Rows
from expunge.judging.copies import Copy
from expunge.judging.independence import (
    RETAINED_SEED,
    able_as,
    agreement_of,
    alike_among,
    chosen_retained,
    seen_auc,
    standing_of,
)
from expunge.judging.outputs import Outputs, masked
from expunge.network.placed import placed
from expunge.network.state import digest_of, hook_count, state_of
from expunge.records import Standing
from expunge.results.read import Reading
from expunge.results.references import refuse_known_again, refuse_known_class
from expunge.results.unlearned import module_of
from expunge.unlearning.request import Request

__all__ = ["references_read", "some_that_stay"]


def references_read(
    request: Request, rows: Copy, stays: Rows | None, stored: Outputs
) -> tuple[tuple[Reading, ...], tuple[Standing, ...]]:
    """What each reference says on the stored rows, and what shows that it is one.

    `stored` is what the given model answers there. Raises ModelError for references that know the
    class of this request, or of an earlier one whose rows are at hand.
    """
    count = len(request.task.references)
    found = [_reference(request, number, rows, stays, stored) for number in range(count)]
    readings = tuple(reading for reading, _ in found)
    standing = alike_among(
        [reading.model for reading in readings], [one for _, one in found], request.means.initial
    )
    return readings, standing


def _reference(
    request: Request, number: int, rows: Copy, stays: Rows | None, stored: Outputs
) -> tuple[Reading, Standing]:
    """What a reference says, and what shows that it is one."""
    task, name = request.task, f"reference {number}"
    own = module_of(task.references[number])
    model = placed(own, request.means.device)
    outputs = Outputs(
        forget=request.logits(model, rows.forget), judge=request.logits(model, rows.judge)
    )
    refuse_known_class(name, task, outputs.forget, task.forget.labels, request.means.limits)
    for past in request.past.forgotten:
        if past.scope == "classes" and past.rows is not None:
            refuse_known_again(name, past, request.logits(model, past.rows), request.means.limits)
    agree = seen = logits = None
    assert outputs.judge is not None
    assert stored.judge is not None
    rest = ~torch.isin(rows.judge.labels, torch.tensor(sorted(task.gone), dtype=torch.int64))
    if task.scope == "classes":
        agree = agreement_of(outputs.judge[rest], stored.judge[rest], task.gone)
    able = able_as(
        outputs.judge[rest],
        masked(stored.judge[rest], task.gone),
        rows.judge.labels[rest],
        task.scope,
        request.means.limits,
    )
    if stays is not None:
        logits = request.logits(model, stays)
        seen = seen_auc(outputs.forget, task.forget.labels, logits, stays.labels)
    standing = standing_of(
        model,
        request.model,
        name=name,
        scope=task.scope,
        initial=request.means.initial,
        agree=agree,
        seen=seen,
        able=able,
    )
    reading = Reading(
        model=own,
        digest=digest_of(state_of(own)),
        hooks=hook_count(own),
        outputs=outputs,
        stays=logits,
    )
    return reading, standing


def some_that_stay(request: Request) -> Rows | None:
    """Up to 500 rows that stay, of the records' classes; None where none are at hand."""
    stays = request.task.retain
    if stays is None:
        return None
    places = chosen_retained(stays.labels, request.task.forget.labels, RETAINED_SEED)
    return stays.select(places) if len(places) else None
