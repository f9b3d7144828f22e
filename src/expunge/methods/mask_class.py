"""Masking the class: the trivial baseline that every class method is shown against.

The row of each forgotten class is set to zero and its bias far below every logit seen, so the
class never wins. The model's other outputs are untouched, and so is everything it knows about the
class: the features, and which neighbour the class resembles, remain as they were.

Equation: w_c ← 0, b_c ← z_min − 10·(z_max − z_min), over the logits z seen. Reference: the head
mask that output-level evaluations must beat, e.g. "An Illusion of Unlearning?", arXiv 2604.08271.
What we do differently: the bias is finite and scaled to the model instead of −∞ or −10⁴, so that
half precision and later edits stay possible.

This module is read where torch is not installed: what works with it is imported when it works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from expunge.errors import UnsupportedError
from expunge.methods.base import Before, Method
from expunge.records import MethodInfo, Paper
from expunge.settings import Positive

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["MaskClass"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MaskClass(Method):
    """Set the class's row to zero and its bias `margin` logit ranges below every logit seen."""

    margin: Positive = 10.0

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mask-class",
        title="Mask the class",
        summary="the trivial baseline: the output is switched off, nothing is forgotten",
        paper=Paper(
            title="An Illusion of Unlearning? (as the baseline to beat)",
            authors="see the link",
            venue="AISTATS 2026",
            link="https://arxiv.org/abs/2604.08271",
        ),
        needs=frozenset({"forget", "head"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        cost="none: the outputs that the door has read are enough",
    )

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse a head without a bias: there is nothing to lower."""
        head = before.head
        if head is not None and not head.has_bias:
            raise UnsupportedError(
                f"Expected a head with a bias for MaskClass, got {head.name!r} without one. Give "
                "the layer a zero bias, or use another method."
            )

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Mask the rows of the forgotten classes."""
        from expunge.network.heads import head_matrix, set_head_matrix

        head = run.needed_head
        # Outputs masked by earlier requests are left out, or the range would grow with each one.
        seen = run.logits_before()[:, sorted({*run.kept, *task.classes})]
        low, high = float(seen.min()), float(seen.max())
        matrix = head_matrix(model, head)
        for label in sorted(task.classes):
            matrix[label] = 0.0
            matrix[label, -1] = low - self.margin * max(high - low, 1.0)
        set_head_matrix(model, head, matrix)
        return model
