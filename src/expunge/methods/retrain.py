"""Retraining from scratch on what stays: the reference every other method is measured against.

A fresh model from `Training.factory` is trained by `Training.fit` on the retain set alone, under
the run's seed. Nothing of the given model is used, so nothing of the forget set can survive in it
(pretraining inside `factory` excepted: that is yours to judge).

Equation: w' = fit(factory(), D∖F). Reference: the definition of exact unlearning; Y. Cao, J. Yang,
"Towards Making Systems Forget with Machine Unlearning", IEEE S&P 2015. What we do differently from
common code: some released "retrain" baselines re-initialise only the last layer of the trained
model; ours never does.

This module is read where torch is not installed: what works with it is imported when it works.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from expunge.methods.base import Before, Method
from expunge.records import MethodInfo, Paper
from expunge.settings import check_settings

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["Retrain"]


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
        """Refuse a recipe that cannot be one, before anything is copied."""
        from expunge.training import Recipe

        del model, before
        if task.training is not None and isinstance(task.training.fit, Recipe):
            check_settings(task.training.fit)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Return a model made by `factory()` and trained by `fit` on the retain set."""
        assert task.training is not None
        assert task.retain is not None
        # a copy: a factory that gives one and the same module must not have it trained in place
        fresh = copy.deepcopy(task.training.factory()).to(run.device)
        run.touched(len(task.retain))
        return task.training.fit(fresh, task.retain, generator=run.generator, device=run.device)
