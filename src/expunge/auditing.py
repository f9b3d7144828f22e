"""The door `audit`: reads every model once on the judge part, and puts the questions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from expunge._judging import masked, most_known, tune_and_judge
from expunge._rng import preserved
from expunge._state import device_of, digest_of, state_of
from expunge.audits import Accuracy, Audit, BiasShift, Case, Divergence, Membership, Part, RowSet
from expunge.data.rows import Rows
from expunge.errors import InputError, ModelError
from expunge.heads import logits_of
from expunge.records import Level, Limits, Measurement, NotMeasured, OutcomeReport
from expunge.task import ForgetTask
from expunge.unlearning import Forgotten, Unlearned, environment, never_forgotten, where

__all__ = ["AuditReport", "audit", "refuse_references"]

_FEW = 256
_MOST_RETAINED = 2_000
_DEFAULT: tuple[Audit, ...] = (Accuracy(), Divergence(), BiasShift(), Membership())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was measured, on whom, and what could not be. It judges nothing and prints nothing."""

    version: int
    method: str
    outcome: OutcomeReport
    level: Level
    subjects: tuple[str, ...]
    references: tuple[str, ...]
    counts: Mapping[str, int]
    measurements: tuple[Measurement | NotMeasured, ...]
    model_digest: str
    environment: Mapping[str, str]

    def value(self, name: str, subject: str, rows: str) -> float | None:
        """The measured value of one figure, or None where it was not measured."""
        for m in self.measurements:
            if (m.name, m.subject, m.rows) == (name, subject, rows):
                return m.value if isinstance(m, Measurement) else None
        return None


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


def refuse_references(
    references: Mapping[str, nn.Module | Unlearned],
    task: ForgetTask,
    original: nn.Module | None,
    forgotten: Sequence[Forgotten],
    limits: Limits,
    edited: nn.Module | None = None,
) -> None:
    """Raise ModelError for references that are not models retrained without the forget set.

    Refused by name: the original or the edited model, one model twice, a run of another method
    than `retrain`, a run that did not forget all of this request and the earlier ones
    (`forgotten`), and, for a class request, a model that recognises the class.
    """
    known = {
        digest_of(state_of(m)): text
        for m, text in ((original, "original"), (edited, "edited"))
        if m
    }
    gone = task.classes.union(*(request.classes for request in forgotten))
    chosen = torch.linspace(0, len(task.forget) - 1, min(_FEW, len(task.forget))).long()
    few = task.forget.select(chosen)
    for name, reference in references.items():
        model = reference.model if isinstance(reference, Unlearned) else reference
        digest = digest_of(state_of(model))
        if digest in known:
            raise ModelError(
                f"Expected {name} to be a model retrained without the forget set, got the "
                f"{known[digest]} model itself. Train one with `Retrain` for each reference."
            )
        known[digest] = f"{name}, again: the same"
        if isinstance(reference, Unlearned):
            _refuse_run(name, reference, task, gone)
        if task.scope == "classes":
            logits = logits_of(model, few, batch_size=_FEW, device=device_of(model))
            left = most_known(logits, few.labels)
            if left > limits.forget_accuracy:
                raise ModelError(
                    f"Expected {name} to be retrained without class {sorted(task.classes)}, but it "
                    f"recognises {left:.1f} % of the forget records (limit: "
                    f"{limits.forget_accuracy:g} %). It was trained on them."
                )


def _refuse_run(name: str, run: Unlearned, task: ForgetTask, gone: frozenset[int]) -> None:
    if run.record.method != "retrain":
        raise ModelError(
            f"Expected {name} to be a run of `retrain`, got one of {run.record.method!r}: what is "
            "measured against it would not be the distance to retraining."
        )
    if not run.history_known:
        return
    classes = frozenset[int]().union(*(request.classes for request in run.forgotten))
    if classes != gone:
        raise ModelError(
            f"Expected {name} to be retrained without classes {sorted(gone)}, got a run without "
            f"{sorted(classes)}. Retrain it for this request."
        )
    ids = {i for request in run.forgotten for i in request.ids}
    kept = [i for i in task.forget.ids if i not in ids]
    if task.scope == "records" and kept:
        raise ModelError(
            f"Expected {name} to be retrained without the forget records, but {len(kept)} of them "
            f"were kept, {kept[0]!r} first. Retrain it for this request."
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
