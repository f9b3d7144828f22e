"""Which models may stand as retrained ones: what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import ModelError
from expunge.judging.outputs import most_known
from expunge.network.calls import to_device
from expunge.network.passes import count_classes
from expunge.network.state import device_of, digest_of, state_of
from expunge.records import Limits
from expunge.results.forgotten import Forgotten
from expunge.results.unlearned import Unlearned, module_of
from expunge.task import ForgetTask

__all__ = [
    "refuse_known_again",
    "refuse_known_class",
    "refuse_references",
    "refuse_unfit_references",
]


def refuse_references(
    references: Mapping[str, nn.Module | Unlearned],
    task: ForgetTask,
    original: nn.Module | None,
    forgotten: Sequence[Forgotten],
    edited: nn.Module | None = None,
) -> None:
    """Raise ModelError for references that are not models retrained without the forget set.

    Refused by name: the original or the edited model, one model twice, a run of another method
    than `retrain`, and a run that did not forget all of this request and the earlier ones
    (`forgotten`). For a class request see `refuse_known_class` too.
    """
    known = {
        digest_of(state_of(m)): text
        for m, text in ((original, "original"), (edited, "edited"))
        if m
    }
    gone = task.classes.union(*(request.classes for request in forgotten))
    for name, reference in references.items():
        model = module_of(reference)
        digest = digest_of(state_of(model))
        if digest in known:
            raise ModelError(
                f"Expected {name} to be a model retrained without the forget set, got the "
                f"{known[digest]} model itself. Train one with `Retrain` for each reference."
            )
        known[digest] = f"{name}, again: the same"
        if isinstance(reference, Unlearned):
            _refuse_run(name, reference, task, gone)


def refuse_known_class(
    name: str,
    task: ForgetTask,
    logits: Float[Tensor, "some classes"],
    labels: Int[Tensor, " some"],
    limits: Limits,
) -> None:
    """Raise ModelError where a reference for a class request recognises the class.

    `logits` and `labels` are those of forget rows of `task`, all of them or some.
    """
    if task.scope != "classes":
        return
    left = most_known(logits, labels)
    if left > limits.forget_accuracy:
        raise ModelError(
            f"Expected {name} to be retrained without class {sorted(task.classes)}, but it "
            f"recognises {left:.1f} % of the forget records (limit: "
            f"{limits.forget_accuracy:g} %). It was trained on them."
        )


def refuse_known_again(
    name: str, past: Forgotten, logits: Float[Tensor, "rows classes"], limits: Limits
) -> None:
    """Raise ModelError where a reference recognises a class of an earlier request."""
    assert past.rows is not None
    left = most_known(logits, past.rows.labels)
    if left > limits.forget_accuracy:
        raise ModelError(
            f"Expected {name} to be retrained without class {sorted(past.classes)} of an earlier "
            f"request too, but it recognises {left:.1f} % of its records (limit: "
            f"{limits.forget_accuracy:g} %). Retrain it without all that was forgotten."
        )


def refuse_unfit_references(
    references: Mapping[str, nn.Module | Unlearned], rows: Rows, classes: int
) -> None:
    """Raise ModelError for references that do not run on two of the rows, or have other outputs."""
    few, _ = rows.batch(torch.arange(min(2, len(rows))))
    for name, reference in references.items():
        model = module_of(reference)
        found = count_classes(model, to_device(few, device_of(model)), f"{name}, forget")
        if found != classes:
            raise ModelError(
                f"Expected {name} to give {classes} logits a row as the model does, got "
                f"{found}. Retrain with the original's number of outputs."
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
