"""Which form PRUNE takes: what does not go together is refused, and `auto` chooses and says why."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.errors import MethodError, UnsupportedError
from expunge.methods.base import Before
from expunge.methods.prune.evidence import Seen
from expunge.methods.prune.merged import Attempt, attempt_merge
from expunge.methods.prune.twins import Twins, find_twins
from expunge.methods.run import Run
from expunge.network.heads import Head
from expunge.patches.heads import GatedLinear, NarrowLinear
from expunge.records import Scope
from expunge.task import ForgetTask

__all__ = ["merged_form", "refuse_head", "refuse_published"]

_MOST_LOST = 0.1
"""Points of tune accuracy that the merged form may cost with form "auto"."""


def refuse_published(model: nn.Module, task: ForgetTask) -> None:
    """Raise where the published mode cannot serve this request on this model."""
    edited = [m for m in model.modules() if isinstance(m, (GatedLinear, NarrowLinear))]
    if edited:
        raise UnsupportedError(
            "Expected a model without patches of other modes for prune as published, got a "
            f"{type(edited[0]).__name__} of an earlier request. Start from the original model with "
            "the records of all requests, or retrain."
        )
    if task.scope == "records":
        find_twins(task.forget, None)


def refuse_head(
    model: nn.Module,
    head: Head,
    scope: Scope,
    before: Before,
    form: Literal["auto", "gated", "merged"],
) -> None:
    """Raise UnsupportedError for half precision, and for a head that this request cannot extend."""
    dtype = head.of(model).weight.dtype
    if dtype != torch.float32:
        raise UnsupportedError(
            f"Expected a head in float32 for Prune, got {dtype}: the certificate holds for "
            "float32 weights only. Convert the model with `.float()`."
        )
    earlier = 0 if before.evidence is None else len(before.evidence.records)
    lost = before.evidence is None and before.predecessor is not None
    if scope == "classes":
        if head.kind == "gated" or earlier or (lost and head.kind == "plain"):
            raise UnsupportedError(
                "Expected a head without patches for records to remove a class, got one that "
                "earlier requests certified records on: their claims would be lost. Start from the "
                "original model: remove the class with a method that keeps its row, such as "
                "mask-class, then forget the records; or retrain."
            )
        return
    if head.kind == "narrow":
        raise UnsupportedError(
            "Expected a head with all its rows to forget records, got one without the rows of "
            "removed classes. Start from the original model: remove the class with a method that "
            "keeps its row, such as mask-class, then forget the records."
        )
    if lost or (before.evidence is None and head.kind == "gated"):
        raise UnsupportedError(
            "Expected what the records of earlier requests were proven with, got none: a new "
            "patch could break their claims. Load the run with its private/ folder and its "
            "features.safetensors, or retrain."
        )
    if form == "merged" and head.kind == "gated":
        raise UnsupportedError(
            'Expected a head without gates for `form` "merged": earlier requests left gates.'
        )


def merged_form(
    model: nn.Module,
    task: ForgetTask,
    run: Run,
    mine: Seen,
    kept: Seen,
    tune: Seen,
    targets: Float[Tensor, "records classes"],
    twins: Twins,
    *,
    spec: Literal["unseen", "mispredict"],
    form: Literal["auto", "gated", "merged"],
    tolerance: float,
    seconds: float,
) -> Attempt | None:
    """The merged form where it was asked for, or where it costs next to nothing; says why.

    With form "auto" it is tried for `seconds`, else for 60 times as long.
    """
    head, n, copies = run.needed_head, len(task.forget), len(twins.retained)
    if form == "gated":
        return None
    if form == "auto" and (reason := _why_not_tried(spec, head, n, copies)):
        run.note(f"form: gated, because {reason}")
        return None
    if copies == n:
        raise MethodError(
            f"Expected some record that is not among what stays, got {n} that are identical to "
            "retained rows. Forget these rows too, or use retrain."
        )
    allowed = seconds if form == "auto" else 60 * seconds
    found = _tried(model, task, run, mine, kept, tune, targets, twins, tolerance, allowed)
    fits = len(found.claimed)
    words = f"{fits} of {n} records fit, tune accuracy changes by {found.tune_change:+.2f} points"
    if not found.finished:
        words += f", and the solver did not finish within {allowed:g} s"
    if not found.earlier_hold:
        words += ", and records of earlier requests lose their claim"
    holds = fits > 0 and found.finished and found.earlier_hold
    if holds and (form == "merged" or (fits == n and found.tune_change >= -_MOST_LOST)):
        run.note(f"form: merged, an edit of the head alone without gates: {words}")
        if fits < n:
            same = f" ({copies} identical to retained rows)" if copies else ""
            run.note(f"{n - fits} of {n} records are not merged{same}: nothing is claimed for them")
        return found
    if form == "merged":
        more = "" if found.finished else ", or more `merge_seconds`"
        raise MethodError(
            f"Expected an edit of the head alone that serves the records, but {words}. "
            f'Use `form = "gated"`, or fewer records{more}.'
        )
    run.note(f"form: gated, because in the merged form {words}")
    return None


def _why_not_tried(spec: str, head: Head, records: int, copies: int) -> str:
    """Why form "auto" does not even try the merged form; "" where it does."""
    if spec == "mispredict":
        return "a forced error is offered with gates only"
    if head.kind == "gated":
        return "earlier requests left gates"
    if records > head.features // 4:
        return f"more records than a quarter of the {head.features} features"
    if copies:
        return f"{copies} of {records} records are identical to retained rows"
    return ""


def _tried(
    model: nn.Module,
    task: ForgetTask,
    run: Run,
    mine: Seen,
    kept: Seen,
    tune: Seen,
    targets: Tensor,
    twins: Twins,
    tolerance: float,
    seconds: float,
) -> Attempt:
    assert task.retain is not None
    assert task.holdout is not None
    run.report("trying an edit of the head alone", 0, 1)
    found = attempt_merge(
        model,
        run.needed_head,
        mine,
        task.forget.labels,
        targets,
        [i for i in range(len(task.forget)) if i not in twins.retained],
        kept,
        task.retain.labels,
        tune,
        task.holdout.labels,
        () if run.evidence is None else run.evidence.records,
        tolerance=tolerance,
        seconds=seconds,
    )
    run.report("trying an edit of the head alone", 1, 1)
    run.log("merge_seconds", found.seconds)
    run.log("merge_tune_change", found.tune_change)
    return found
