"""What is read beside the stored rows: retrained models, and for records copies and rows that stay.

A noisy copy of each row, and the views that the user named, tell a model that has forgotten from
one that answers from a table; rows that stay tell whether the records are like others at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn

from expunge.judging.copies import Copies, Copy, answers, copies_of, sights
from expunge.judging.outputs import Beside, Outputs
from expunge.network.placed import placed
from expunge.unlearning.references import references_read, some_that_stay
from expunge.unlearning.request import Aside, Request
from expunge.unlearning.served import Served

__all__ = ["after_copies", "beside_of", "seen_beside", "told_of"]


def seen_beside(request: Request, copied: nn.Module, stored: Outputs) -> Aside:
    """Read with the given model, and with each reference; nothing is edited yet.

    `stored` is what the given model answers on the stored rows. Raises ModelError for references
    that know the class, or have other outputs.
    """
    judge = request.split.judge
    if judge is None or not len(judge):
        return Aside()
    rows, records = Copy(request.task.forget, judge), request.task.scope == "records"
    stays = some_that_stay(request) if records else None
    readings, standing = references_read(request, rows, stays, stored)
    made = copies_of(rows, request.task.views) if records else {}
    copies = _answers(request, copied, made)
    asked = stays if "retain" in request.needs else None
    return Aside(
        readings=tuple(
            dataclasses.replace(reading, copies=_answers(request, reading.model, made))
            if one.level == "C1"
            else reading
            for reading, one in zip(readings, standing, strict=True)
        ),
        standing=standing,
        made={name: made[name] for name in copies},
        lost=tuple(name for name in made if name not in copies),
        copies=copies,
        stays=stays,
        retained=None if asked is None else request.logits(copied, asked),
    )


def told_of(seen: Aside) -> tuple[str, ...]:
    """Notes where references are not shown to be independent, and where copies gave no numbers."""
    notes: tuple[str, ...] = ()
    count = sum(one.level != "C1" for one in seen.standing)
    if count:
        note = f"{count} of {len(seen.standing)} references are not shown to be independent"
        notes += (f"{note} (level unverified) and took no part in the outcome",)
    if seen.lost:
        notes += (
            "noisy copies were not judged: the model does not run, or gives no numbers, there",
        )
    return notes


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


def _answers(request: Request, model: nn.Module, copies: Mapping[str, tuple[Copy, ...]]) -> Copies:
    size, device = request.means.batch_size, request.means.device
    return answers(placed(model, device), copies, batch_size=size, device=device)
