"""Fine-tuning on what stays: the simplest method that uses the retain set.

The trained model goes on training on the retain set alone and is hoped to forget the rest
(catastrophic forgetting used on purpose). It is a baseline: gently tuned it changes little, and
what it had learned of the forget set is not targeted at all.

Equation: w ← w − η ∇ (1/|R|) Σ_R CE(f(x; w), y). Reference: A. Golatkar, A. Achille, S. Soatto,
"Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933 (baseline "fine-tune"). What we
do differently: norm and dropout layers train as usual, which is declared (`changes_buffers`).

This module is read where torch is not installed: what works with it is imported when it works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, final

from expunge.methods.base import Method
from expunge.records import MethodInfo, Paper
from expunge.settings import Count, NotNegative, Positive

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["FineTune"]

_GENTLE = "a baseline: gentle fine-tuning is not expected to forget anything"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(Method):
    """Go on training on the retain set with SGD (cosine schedule, momentum 0.9)."""

    epochs: Count = 5
    lr: Positive = 0.05
    batch_size: Count = 128
    weight_decay: NotNegative = 5e-4

    info: ClassVar[MethodInfo] = MethodInfo(
        name="fine-tune",
        title="Fine-tuning",
        summary="go on training on what stays; a baseline",
        paper=Paper(
            title="Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks",
            authors="A. Golatkar, A. Achille, S. Soatto",
            venue="CVPR 2020",
            link="https://arxiv.org/abs/1911.04933",
        ),
        needs=frozenset({"retain"}),
        aims=frozenset({"absent", "unseen"}),
        scopes=frozenset({"classes", "records"}),
        claims=("outputs",),
        changes_buffers=True,
        stochastic=True,
        cost="`epochs` passes of training over what stays",
        reads="`epochs` × the rows that stay",
        expected_failures={
            "class_forgotten": _GENTLE,
            "sequence_stays_forgotten": _GENTLE,
        },
    )

    @classmethod
    def small(cls) -> Self:
        """The defaults with fewer epochs: the toys need no more."""
        return cls(epochs=2)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Train the copy on the retain set."""
        from expunge.training import Recipe, descend

        assert task.retain is not None
        recipe = Recipe(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
        )
        rows = task.retain

        def count(epoch: int, loss: float) -> None:
            run.log("loss", loss)
            run.touched(len(rows))
            run.stepped(-(-len(rows) // self.batch_size))
            run.report("fine-tune", epoch + 1, self.epochs)

        return descend(
            model, rows, recipe, generator=run.generator, device=run.device, on_epoch=count
        )
