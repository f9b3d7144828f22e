"""The door `audit`: reads every model once on the judge part, and puts the questions."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expunge.auditing.references import refuse_references
from expunge.audits import Accuracy, Audit, BiasShift, Case, Divergence, Membership, Part, RowSet
from expunge.data.rows import Rows
from expunge.errors import InputError, ModelError
from expunge.judging.outputs import masked
from expunge.judging.split import tune_and_judge
from expunge.network.passes import logits_of
from expunge.network.state import device_of, digest_of, state_of
from expunge.results.forgotten import Forgotten, never_forgotten
from expunge.results.report import AuditReport
from expunge.results.unlearned import Unlearned
from expunge.runtime.machine import environment, where
from expunge.runtime.randomness import preserved
from expunge.task import ForgetTask

__all__ = ["audit"]


_MOST_RETAINED = 2_000


_DEFAULT: tuple[Audit, ...] = (Accuracy(), Divergence(), BiasShift(), Membership())


@preserved()
def audit(
    result: Unlearned,
    task: ForgetTask,
    *,
    references: Sequence[nn.Module | Unlearned] = (),
    original: nn.Module | None = None,
    audits: Sequence[Audit] = _DEFAULT,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> AuditReport:
    """Measure `result` on the forget records and on the judge part of the holdout.

    `references` are models retrained without the forget set, or results of `Retrain` (three or
    more show their own spread). `original` defaults to the model that was given to `unlearn`. The
    split into tune and judge is the one the method was held to. `device` defaults to each model's
    own. Raises InputError for an empty list of audits, and ModelError for references that are no
    retrained models (see `refuse_references`) or have another number of classes.
    """
    if not audits:
        raise InputError("Expected at least one audit, got none: an empty audit proves nothing.")
    gone = task.classes.union(*(request.classes for request in result.forgotten))
    judge = _judge_rows(result, task)
    parts = _parts(task, judge, gone) | _retained_parts(task, result.forgotten)
    before = original if original is not None else result.original
    models: dict[str, nn.Module] = {} if before is None else {"before": before}
    models["after"] = result.model
    named = {f"reference {i}": reference for i, reference in enumerate(references)}
    # a retrained model may stand among the references it is shown with
    edited = None if result.record.method == "retrain" else result.model
    refuse_references(named, task, before, result.forgotten, result.record.limits, edited)
    names = tuple(f"retrained-{i}" for i in range(len(references)))
    retrained = (r.model if isinstance(r, Unlearned) else r for r in references)
    models.update(zip(names, retrained, strict=True))
    logits: dict[Part, dict[str, Tensor]] = {part: {} for part in parts}
    for subject, model in models.items():
        placed = _placed(model, device)
        for part, rows in parts.items():
            logits[part][subject] = logits_of(
                placed, rows, batch_size=batch_size, device=device_of(placed)
            )
    widths = {subject: z.shape[1] for by in logits.values() for subject, z in by.items()}
    for name, width in widths.items():
        if width != widths["after"]:
            raise ModelError(
                f"Expected every model to give {widths['after']} logits a row, got {width} from "
                f"{name}. Retrain with the original's number of outputs."
            )
    subjects = tuple(models)
    if task.scope == "classes" and before is not None:
        subjects = ("before", "after", "mask-class", *names)
        for by in logits.values():
            by["mask-class"] = masked(by["before"], gone)
    case = Case(
        aim=task.aim,
        scope=task.scope,
        gone=gone,
        classes=widths["after"],
        subjects=subjects,
        references=names,
        parts={part: RowSet(rows.labels, logits[part]) for part, rows in parts.items()},
        seed=result.split_seed,
    )
    measured = tuple(m for question in audits for m in question.measure(case))
    return AuditReport(
        version=1,
        method=result.record.method,
        outcome=result.record.outcome,
        level=case.level(),
        subjects=subjects,
        references=names,
        counts={part: len(rows) for part, rows in parts.items()},
        measurements=measured,
        model_digest=digest_of(state_of(result.model)),
        environment=environment(device_of(result.model) if device is None else where(device)),
    )


def _placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The model, or a copy of it on `device`: the user's own is never moved."""
    if device is None or where(device) == device_of(model):
        return model
    return copy.deepcopy(model).to(where(device))


def _judge_rows(result: Unlearned, task: ForgetTask) -> Rows | None:
    if task.holdout is None:
        return None
    past = [r.rows for r in result.forgotten if r.rows is not None]
    return tune_and_judge(task.holdout, [task.forget, *past], result.split_seed)[1]


def _parts(task: ForgetTask, judge: Rows | None, gone: frozenset[int]) -> dict[Part, Rows]:
    parts: dict[Part, Rows] = {"forget-train": task.forget}
    if judge is None:
        return parts
    absent = torch.isin(judge.labels, torch.tensor(sorted(gone), dtype=torch.int64))
    same = (
        absent if task.scope == "classes" else torch.isin(judge.labels, task.forget.labels.unique())
    )
    found: dict[Part, torch.Tensor] = {"forget-test": same, "others": ~absent}
    for part, chosen in found.items():
        if bool(chosen.any()):
            parts[part] = judge.select(chosen.nonzero().flatten())
    return parts


def _retained_parts(task: ForgetTask, gone: Sequence[Forgotten]) -> dict[Part, Rows]:
    """For a record request: rows that stay in training, of all and of the same classes."""
    if task.scope != "records" or task.retain is None:
        return {}
    stays = never_forgotten(task.retain, gone)
    same = torch.isin(stays.labels, task.forget.labels.unique())
    parts: dict[Part, Rows] = {}
    choices: dict[Part, Tensor] = {
        "retained": torch.arange(len(stays)),
        "retained-same": same.nonzero().flatten(),
    }
    for part, chosen in choices.items():
        if len(chosen):
            spread = torch.linspace(0, len(chosen) - 1, min(_MOST_RETAINED, len(chosen))).long()
            parts[part] = stays.select(chosen[spread])
    return parts
