"""Retraining from scratch on what stays: the reference every other method is measured against.

A fresh model from `Training.factory` is trained by `Training.fit` on the retain set alone, under
the run's seed. Nothing of the given model is used, so nothing of the forget set can survive in it
(pretraining inside `factory` excepted: that is yours to judge). A factory that gives the trained
weights, or its backbone under a new head, is refused.

Equation: w' = fit(factory(), D∖F). Reference: the definition of exact unlearning; Y. Cao, J. Yang,
"Towards Making Systems Forget with Machine Unlearning", IEEE S&P 2015. What we do differently from
common code: some released "retrain" baselines re-initialise only the last layer of the trained
model; ours never does.

This module is read where torch is not installed: what works with it is imported when it works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from expunge.errors import InputError
from expunge.methods.base import Before, Method
from expunge.records import MethodInfo, Paper
from expunge.settings import check_settings

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.network.heads import Head
    from expunge.task import ForgetTask

__all__ = ["Retrain"]

_KEPT = (
    "`factory` gives the given model's own backbone, which is frozen there: what it knew of the "
    "forget set before training is still in"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain(Method):
    """Train a fresh model on the retain set with the original's own recipe."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="retrain",
        title="Retraining",
        summary="train a fresh model without the forget set; exact, slow",
        paper=Paper(
            title="Towards Making Systems Forget with Machine Unlearning",
            authors="Y. Cao, J. Yang",
            venue="IEEE S&P 2015",
            link="https://doi.org/10.1109/SP.2015.35",
        ),
        needs=frozenset({"retain", "training"}),
        aims=frozenset({"absent", "unseen"}),
        scopes=frozenset({"classes", "records"}),
        claims=("outputs", "features", "file"),
        changes_buffers=True,
        stochastic=True,
        cost="a whole training run",
        reads="what `fit` passes over the rows that stay: its epochs",
    )

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse a recipe that cannot be one, and a factory that gives what was trained."""
        from expunge.network.weights import build
        from expunge.runtime.randomness import preserved
        from expunge.training import Recipe

        if task.training is None:
            return
        if isinstance(task.training.fit, Recipe):
            check_settings(task.training.fit)
        with preserved():
            fresh = build(task.training.factory, name="training.factory")
        _refuse_trained(model, fresh, before.head)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Return a model made by `factory()` and trained by `fit` on the retain set."""
        from expunge.network.weights import build

        assert task.training is not None
        assert task.retain is not None
        # a copy: a factory that gives one and the same module must not have it trained in place
        fresh = build(task.training.factory, name="training.factory").to(run.device)
        for note in _refuse_trained(model, fresh, run.head):
            run.note(note)
        run.touched(len(task.retain))
        return task.training.fit(fresh, task.retain, generator=run.generator, device=run.device)


def _refuse_trained(model: nn.Module, fresh: nn.Module, head: Head | None) -> tuple[str, ...]:
    """Refuse what a factory gives where it holds the trained model; a note for a frozen backbone.

    A factory may give something else at each call, so this is looked at again before `fit`.
    """
    shared = _shared(model, fresh, head)
    if shared is None:
        return ()
    if shared == "backbone" and _frozen(model, head):
        return (_KEPT,)
    got = "the given model's own weights" if shared == "model" else "its backbone under a new head"
    raise InputError(
        "Expected `factory` (of `training`; in a job under [model]) to build the architecture with "
        f"fresh weights, got {got}, as `from_pretrained(my model)` gives them: what was learnt of "
        "the forget set would stay. Build it from its configuration, or from the weights before "
        "training. A backbone that was never trained passes where it is frozen in the model "
        "(`requires_grad_(False)`)."
    )


def _shared(
    model: nn.Module, fresh: nn.Module, head: Head | None
) -> Literal["model", "backbone"] | None:
    """Which of the given model's parameters `fresh` holds bit for bit, under whatever names."""
    from expunge.network.state import contents_of

    there = contents_of(dict(fresh.named_parameters()))
    if contents_of(_trained(model, None)) <= there:
        return "model"
    return "backbone" if contents_of(_trained(model, head)) <= there else None


def _trained(model: nn.Module, head: Head | None) -> dict[str, nn.Parameter]:
    """The parameters below the head, or all of them where there is nothing below it."""
    from expunge.patches.regions import inside

    every = dict(inside(model).named_parameters())
    own = set() if head is None else head.tensor_names()
    return {n: p for n, p in every.items() if n not in own} or every


def _frozen(model: nn.Module, head: Head | None) -> bool:
    """Whether the backbone was kept out of training: it is frozen, and something else is not."""
    below = _trained(model, head)
    frozen = not any(p.requires_grad for p in below.values())
    return frozen and any(p.requires_grad for p in model.parameters())
