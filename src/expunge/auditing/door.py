"""The door `audit`: reads every model once on the judge part, and puts the questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from expunge.auditing.judging import Said, judged_again
from expunge.auditing.reading import (
    Areas,
    Logits,
    areas_of,
    known_of,
    logits_in,
)
from expunge.auditing.standing import Compared, standing_in
from expunge.auditing.tied import (
    refuse_other_holdout,
    refuse_other_original,
    refuse_other_request,
    without_skipped,
)
from expunge.audits import Accuracy, Audit, BiasShift, Case, Divergence, Membership, RowSet
from expunge.data.copies import Views, checked_views, refuse_unfit_views
from expunge.errors import InputError, ModelError
from expunge.judging.independence import alike_among
from expunge.judging.outputs import masked
from expunge.network.calls import to_device
from expunge.network.passes import count_classes, logits_of
from expunge.network.state import device_of, digest_of, state_of
from expunge.records import Standing
from expunge.results.references import (
    refuse_known_again,
    refuse_known_class,
    refuse_references,
    refuse_unfit_references,
)
from expunge.results.report import AuditReport
from expunge.results.unlearned import Unlearned, module_of
from expunge.runtime.machine import environment, where
from expunge.runtime.randomness import preserved
from expunge.settings import checked_count
from expunge.task import ForgetTask

__all__ = ["audit"]

_DEFAULT: tuple[Audit, ...] = (Accuracy(), Divergence(), BiasShift(), Membership())


@preserved()
def audit(
    result: Unlearned,
    task: ForgetTask,
    *,
    references: Sequence[nn.Module | Unlearned] = (),
    original: nn.Module | None = None,
    initial: Mapping[str, Tensor] | None = None,
    audits: Sequence[Audit] = _DEFAULT,
    views: str | Views | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> AuditReport:
    """Measure `result` on the forget records and on the judge part of the holdout.

    `references` are models retrained without the forget set, or results of `Retrain` (three or
    more show their own spread); `initial` are the weights before training, where kept: they help to
    show that a reference was trained on its own. `original` defaults to the model that was given to
    `unlearn`. The split into tune and judge is the one the method was held to. `device` defaults to
    each model's own. `views` are those of `unlearn`. What `unlearn` has read of this very `task` is
    not read again. Raises InputError for an empty list of audits or a `batch_size` that is no whole
    number from 1, DataError for `views` that do not serve the rows, TaskError for another request
    than the run's, and ModelError for another original, references that are no retrained models
    (see `refuse_references`) or another number of classes.
    """
    if not audits:
        raise InputError("Expected at least one audit, got none: an empty audit proves nothing.")
    size = checked_count(batch_size, "batch_size")
    task = without_skipped(result, task)
    chosen = _checked_views(task, views)
    before = original if original is not None else result.original
    refuse_other_request(result, task)
    refuse_other_holdout(result, task)
    refuse_other_original(result, before)
    gone = task.classes.union(*(request.classes for request in result.forgotten))
    areas = areas_of(result, task, gone)
    named = {f"reference {i}": reference for i, reference in enumerate(references)}
    # a retrained model may stand among the references it is shown with
    edited = None if result.record.method == "retrain" else result.model
    refuse_references(named, task, before, result.forgotten, edited)
    if named:
        refuse_unfit_references(named, task.forget, _outputs_of(result.model, task))
    digest = digest_of(state_of(result.model))
    models = {} if before is None else {"before": before}
    models["after"] = result.model
    for i, reference in enumerate(references):
        models[f"retrained-{i}"] = module_of(reference)
    known = {
        subject: known_of(result, task, model, chosen, device) for subject, model in models.items()
    }
    said = {
        subject: logits_in(areas, model, known[subject], batch_size=size, device=device)
        for subject, model in models.items()
    }
    names = tuple(f"retrained-{i}" for i in range(len(references)))
    for name, subject in zip(named, names, strict=True):
        logits = said[subject]["forget"]
        refuse_known_class(name, task, logits, task.forget.labels, result.record.limits)
        for past in result.forgotten[:-1]:
            if past.scope == "classes" and past.rows is not None:
                model = models[subject]
                again = logits_of(model, past.rows, batch_size=size, device=device_of(model))
                refuse_known_again(name, past, again, result.record.limits)
    _refuse_other_outputs(said)
    compared = Compared(
        scope=task.scope,
        gone=gone,
        original=before,
        initial=initial,
        limits=result.record.limits,
        areas=areas,
        said=said,
    )
    standing = alike_among(
        [models[name] for name in names],
        [standing_in(compared, name, models[name]) for name in names],
        initial,
    )
    case = _case(result, task, gone, areas, said, standing)
    own = device_of(result.model) if device is None else where(device)
    everything = Said(
        areas=areas,
        models=models,
        logits=said,
        known=known,
        standing=standing,
        views=chosen,
        batch_size=size,
        device=own,
    )
    measured = tuple(m for question in audits for m in question.measure(case))
    return AuditReport(
        version=1,
        method=result.record.method,
        outcome=result.record.outcome,
        judged=judged_again(result, task, everything),
        commitment=result.record.commitment,
        digest_before=result.record.digest_before,
        limits=result.record.limits,
        level=case.level(),
        subjects=case.subjects,
        references=case.references,
        standing=standing,
        counts={part: len(rows.labels) for part, rows in case.parts.items()},
        measurements=measured,
        model_digest=digest,
        environment=environment(own),
    )


def _outputs_of(model: nn.Module, task: ForgetTask) -> int:
    """How many logits a row the edited model gives."""
    few, _ = task.forget.batch(torch.arange(min(2, len(task.forget))))
    return count_classes(model, to_device(few, device_of(model)), "forget")


def _checked_views(task: ForgetTask, views: str | Views | None) -> Views | None:
    """The views named here, or with the task; raises DataError where they do not serve its rows."""
    chosen = task.views if views is None else checked_views(views)
    for name, rows in (("forget", task.forget), ("holdout", task.holdout)):
        if chosen is not None and rows is not None:
            refuse_unfit_views(chosen, rows, name)
    return chosen


def _refuse_other_outputs(said: Mapping[str, Logits]) -> None:
    """Raise ModelError for models with other outputs than the edited one."""
    classes = next(iter(said["after"].values())).shape[1]
    for name, logits in said.items():
        for z in logits.values():
            if z.shape[1] != classes:
                raise ModelError(
                    f"Expected every model to give {classes} logits a row, got {z.shape[1]} from "
                    f"{name}. Retrain with the original's number of outputs."
                )


def _case(
    result: Unlearned,
    task: ForgetTask,
    gone: frozenset[int],
    areas: Areas,
    said: Mapping[str, Logits],
    standing: tuple[Standing, ...],
) -> Case:
    """Everything an audit may look at."""
    subjects = tuple(said)
    if task.scope == "classes" and "before" in said:
        mask = {area: masked(z, gone) for area, z in said["before"].items()}
        said = {**said, "mask-class": mask}
        subjects = ("before", "after", "mask-class", *(one.reference for one in standing))
    return Case(
        aim=task.aim,
        scope=task.scope,
        gone=gone,
        classes=next(iter(said["after"].values())).shape[1],
        subjects=subjects,
        standing=standing,
        parts={
            part: RowSet(
                areas.labels(part), {subject: said[subject][area][places] for subject in subjects}
            )
            for part, (area, places) in areas.parts.items()
        },
        seed=result.record.seed,
    )
