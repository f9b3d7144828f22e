"""What is read beside the stored rows: retrained models, and for records copies and rows that stay.

A noisy copy of each row, and the views that the user named, tell a model that has forgotten from
one that answers from a table; rows that stay tell whether the records are like others at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import ModelError
from expunge.judging.copies import Copies, Copy, answers, copies_of, sights
from expunge.judging.independence import (
    RETAINED_SEED,
    agreement_of,
    chosen_retained,
    seen_auc,
    standing_of,
)
from expunge.judging.outputs import Beside, Outputs
from expunge.network.passes import logits_of
from expunge.network.placed import placed
from expunge.network.state import digest_of, hook_count, state_of
from expunge.records import Standing
from expunge.results.read import Reading
from expunge.results.references import refuse_known_class
from expunge.results.unlearned import Unlearned
from expunge.unlearning.request import Aside, Request
from expunge.unlearning.served import Served

__all__ = ["after_copies", "beside_of", "seen_beside", "unverified"]


def seen_beside(request: Request, copied: nn.Module, stored: Outputs) -> Aside:
    """Read with the given model, and with each reference; nothing is edited yet.

    `stored` is what the given model answers on the stored rows. Raises ModelError for references
    that know the class, or have other outputs.
    """
    judge = request.split.judge
    if judge is None:
        return Aside()
    records = request.task.scope == "records"
    copies = copies_of(Copy(request.task.forget, judge), request.task.views) if records else {}
    references = [
        _reference(request, n, Copy(request.task.forget, judge), copies, stored)
        for n in range(len(request.task.references))
    ]
    stays = _some_that_stay(request) if records else None
    asked = stays if "retain" in request.needs else None
    return Aside(
        readings=tuple(reading for reading, _ in references),
        standing=tuple(standing for _, standing in references),
        made=copies,
        copies=_answers(request, copied, copies),
        stays=stays,
        retained=None if asked is None else _logits(request, copied, asked),
    )


def _reference(
    request: Request,
    number: int,
    rows: Copy,
    copies: Mapping[str, tuple[Copy, ...]],
    stored: Outputs,
) -> tuple[Reading, Standing]:
    """What a reference says, and what shows that it is one; its copies are read only then."""
    task, name = request.task, f"reference {number}"
    given = task.references[number]
    own = given.model if isinstance(given, Unlearned) else given
    model = placed(own, request.means.device)
    outputs = Outputs(
        forget=_logits(request, model, rows.forget), judge=_logits(request, model, rows.judge)
    )
    if outputs.forget.shape != stored.forget.shape:
        raise ModelError(
            f"Expected {name} to give {stored.forget.shape[1]} logits a row as the model does, got "
            f"{outputs.forget.shape[1]}. Retrain with the original's number of outputs."
        )
    refuse_known_class(name, task, outputs.forget, task.forget.labels, request.means.limits)
    agree = seen = logits = None
    if task.scope == "classes" and outputs.judge is not None and stored.judge is not None:
        rest = ~torch.isin(rows.judge.labels, torch.tensor(sorted(task.gone)))
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
        copies=_answers(request, model, copies) if standing.level == "C1" else {},
    )
    return reading, standing


def unverified(seen: Aside) -> tuple[str, ...]:
    """A note where some references are not shown to be independent."""
    count = sum(one.level != "C1" for one in seen.standing)
    if not count:
        return ()
    note = f"{count} of {len(seen.standing)} references are not shown to be independent"
    return (f"{note} (level unverified) and took no part in the outcome",)


def after_copies(request: Request, seen: Aside, edited: nn.Module) -> Copies:
    """What the edited model answers on the changed copies."""
    return _answers(request, edited, seen.made)


def beside_of(request: Request, seen: Aside, after: Copies, served: Served) -> Beside:
    """What a judgement gets to see beside the stored rows, of the records that were served."""
    info = request.method.info
    independent = [reading.copies for reading in seen.independent]
    return Beside(
        copies=sights(seen.copies, after, independent, served.part),
        retained=seen.retained,
        retained_labels=None if seen.stays is None else seen.stays.labels,
        reach=info.reach,
        trained_anew="training" in info.needs,
    )


def _some_that_stay(request: Request) -> Rows | None:
    """Up to 500 rows that stay, of the records' classes; None where none are at hand."""
    stays = request.task.retain
    if stays is None:
        return None
    places = chosen_retained(stays.labels, request.task.forget.labels, RETAINED_SEED)
    return stays.select(places) if len(places) else None


def _answers(request: Request, model: nn.Module, copies: Mapping[str, tuple[Copy, ...]]) -> Copies:
    size, device = request.means.batch_size, request.means.device
    return answers(model, copies, batch_size=size, device=device)


def _logits(request: Request, model: nn.Module, rows: Rows) -> Float[Tensor, "rows classes"]:
    size, device = request.means.batch_size, request.means.device
    return logits_of(model, rows, batch_size=size, device=device)
