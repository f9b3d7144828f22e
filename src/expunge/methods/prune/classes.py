"""A whole class: its output row is taken away, which holds for every possible input."""

from __future__ import annotations

from torch import nn

from expunge.methods.prune.evidence import Origin, narrow_evidence
from expunge.methods.prune.notes import say_narrowed
from expunge.methods.run import Run
from expunge.patches.heads import narrowed, replaced
from expunge.task import ForgetTask

__all__ = ["without_rows"]


def without_rows(model: nn.Module, task: ForgetTask, run: Run, name: str) -> nn.Module:
    """Take the rows of the classes out of the head; `name` is the method's in the evidence.

    A head that lacks rows already is certified further only where the evidence of that is at hand.
    """
    head = run.needed_head
    earlier = run.before.evidence
    past = earlier if earlier is not None and earlier.form == "narrow" else None
    layer = narrowed(head.of(model), task.classes, head.classes)
    evidence = (
        narrow_evidence(
            model,
            head,
            layer,
            past,
            Origin(
                seed=run.seed,
                predecessor=run.before.predecessor,
                settings={"name": name, "form": "narrow"},
            ),
        )
        if head.kind != "narrow" or past is not None
        else None
    )
    run.shape("narrows")
    run.prove(evidence)
    say_narrowed(run, evidence=evidence)
    return replaced(model, head.name, layer)
