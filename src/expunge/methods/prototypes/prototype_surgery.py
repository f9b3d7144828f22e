"""Prototype Surgery: soft labels tell the forget rows' features how a model without them answers.

Every forget row gets a soft label that a model never trained on the class might give; then all
prototypes are moved until the head gives these labels, and held back by how much the logits of
what stays would change. The problem is convex and solved to convergence on cached features.

Equation: min over A of (1/n_f) Σ_f CE(q_i, σ(A h̃_i)) + (μ/2) tr[(A−A*) Ĝ_λ (A−A*)ᵀ], with
Ĝ_λ = (G̃_r + λJ)/n_r: the second term is the mean squared change of the retained logits, without
retained data. Reference: Prototype Surgery, ACM CCS 2025.
What we do differently: the released code trains the last bias vector only, softmaxes twice, and
lets the class be its own runner-up; ours moves all prototypes and biases, has an anchor, no epochs
and no learning rate. Labels default to those of a head that never saw the class (`leave-out`: the
trained head after least-squares removal, A* + s(B_r − B)) instead of two runners-up sharing the
true logit (`paper`). The bare ridge head s·B_r (`ridge-head`) is offered too: with a hundred
classes its labels differ so much from the trained head's answers that what stays is damaged.
Labels that forbid the true class are refused where the class stays, since a retrained model still
gets most such records right.

    symbol         what it is                                function
    h̃_i            features of the forget rows               Run.features
    A*             the trained head in centred coordinates   statistics.sums.to_centred
    q_i            soft labels                               anchored.soft_labels
    μ Ĝ_λ          the metric of the anchor (μ: `strength`)  anchored.metric_of
    argmin over A  the convex problem                        solve.solve_anchored
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from expunge.errors import UnsupportedError
from expunge.methods.base import Before, Method
from expunge.methods.prototypes.paper import PAPER
from expunge.records import MethodInfo, Need
from expunge.settings import NotNegative, Positive

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["PrototypeSurgery"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeSurgery(Method):
    """Move all prototypes towards soft labels, anchored by what stays.

    `labels`: `leave-out`, `ridge-head`, `mask` (the model's own answer without the class) or
    `paper`. `anchor`: `statistics` (no retained data) or `retain` (their rows are used too, and
    the leave-out labels come from a head refitted from zero with the L2 penalty `refit_penalty`).
    `strength` is μ, without which nothing would hold the classes that stay; `ridge` is λ relative
    to the mean variance of the features; the solver stops at `tolerance`.
    """

    labels: Literal["leave-out", "ridge-head", "mask", "paper"] = "leave-out"
    anchor: Literal["statistics", "retain"] = "statistics"
    strength: Positive = 1e-2
    ridge: NotNegative = 1e-2
    refit_penalty: Positive = 1e-3
    tolerance: Positive = 1e-5

    info: ClassVar[MethodInfo] = MethodInfo(
        name="prototype-surgery",
        title="Prototype Surgery",
        summary="move all prototypes to soft labels of a head that never saw the class",
        paper=PAPER,
        needs=frozenset({"forget", "statistics", "head"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        cost="one pass over the forget set and one convex solve in K(d+1) unknowns",
        reads="the training rows once, where statistics are not given; the forget rows once; with "
        "anchor retain what stays once",
    )

    @classmethod
    def as_published(cls) -> PrototypeSurgery:
        """The published labels: the true logit is shared between the two runners-up.

        The anchor and the solver are ours: the released code trains the last bias alone.
        """
        return cls(labels="paper")

    @classmethod
    def small(cls) -> PrototypeSurgery:
        """A coarser solver for toys."""
        return cls(tolerance=1e-3)

    def _extra_needs(self) -> frozenset[Need]:
        return frozenset({"retain"}) if self.anchor == "retain" else frozenset()

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse labels that forbid a class that stays, and statistics that know no records."""
        from expunge.methods.prototypes.refusals import refuse_without_ids

        refuse_without_ids(task)
        if task.aim != "absent":
            raise UnsupportedError(
                f'Expected aim "absent" for labels {self.labels!r}, got {task.aim!r}: these labels '
                "forbid the true class, and a retrained model still gets most records of a class "
                "that stays right."
            )

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Solve the convex problem and write the head."""
        from expunge.methods.prototypes.anchored import (
            metric_of,
            problem_of,
            soft_labels,
            system_of,
        )
        from expunge.methods.prototypes.solve import solve_anchored
        from expunge.network.heads import set_head_matrix
        from expunge.statistics.sums import from_centred

        problem = problem_of(model, task, run, self.anchor)
        soft = soft_labels(problem, self.labels, self.refit_penalty)
        rows, labels, weights = system_of(problem, soft)
        metric = metric_of(problem, self.ridge, self.strength)
        width = problem.trained.shape[1] if problem.has_bias else problem.trained.shape[1] - 1
        moved, steps, gradient = solve_anchored(
            rows[:, :width],
            labels,
            weights,
            problem.trained[:, :width],
            metric[:width, :width],
            tolerance=self.tolerance,
        )
        run.log("solver_steps", steps)
        run.log("solver_gradient", gradient)
        if gradient > 10 * self.tolerance:
            run.note(f"the solver stopped at gradient {gradient:.1e}, above {self.tolerance:.0e}")
        full = problem.trained.clone()
        full[:, :width] = moved
        set_head_matrix(model, run.needed_head, from_centred(full, problem.statistics.mean))
        return model
