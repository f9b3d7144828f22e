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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.errors import InputError, UnsupportedError
from expunge.methods.base import Method
from expunge.methods.prototypes.solve import fit_head, mask_labels, paper_labels, solve_anchored
from expunge.methods.run import Run
from expunge.network.heads import head_matrix, set_head_matrix
from expunge.records import MethodInfo, Need, Paper
from expunge.statistics.features import FeatureStatistics
from expunge.statistics.sums import Sums, from_centred, to_centred
from expunge.task import ForgetTask

__all__ = ["PrototypeSurgery"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeSurgery(Method):
    """Move all prototypes towards soft labels, anchored by what stays.

    `labels`: `leave-out`, `ridge-head`, `mask` (the model's own answer without the class) or
    `paper`.
    `anchor`: `statistics` (no retained data) or `retain` (their rows are used too, and the
    leave-out labels come from a head refitted from zero with L2 `refit_ridge`). `strength` is μ.
    """

    labels: Literal["leave-out", "ridge-head", "mask", "paper"] = "leave-out"
    anchor: Literal["statistics", "retain"] = "statistics"
    strength: float = 1e-2
    ridge: float = 1e-2
    refit_ridge: float = 1e-3
    tolerance: float = 1e-5

    info: ClassVar[MethodInfo] = MethodInfo(
        name="prototype-surgery",
        title="Prototype Surgery",
        summary="move all prototypes to soft labels of a head that never saw the class",
        paper=Paper(
            title="Prototype Surgery (title of the released code: Modifying Neural Prototypes via "
            "Soft Labels for Enhanced Machine Unlearning Efficiency)",
            authors="see the proceedings",
            venue="ACM CCS 2025",
        ),
        needs=frozenset({"forget", "statistics", "head"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        cost="one pass over the forget set and one convex solve in K(d+1) unknowns",
    )

    def _extra_needs(self) -> frozenset[Need]:
        return frozenset({"retain"}) if self.anchor == "retain" else frozenset()

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Solve the convex problem and write the head."""
        self._check(task)
        statistics = task.statistics
        if statistics is None:
            raise UnsupportedError("Expected feature statistics, got none.")
        head = run.needed_head
        gone = torch.ones(run.classes, dtype=torch.bool)
        gone[list(run.kept)] = False
        trained = to_centred(head_matrix(model, head), statistics.mean)
        features = run.features(model, task.forget, statistics.mean)
        run.forget_sums = Sums.of(features, task.forget.labels, head.classes)
        left = statistics.without(run.forget_sums, task.forget.ids)
        rows, weights = features, torch.full((len(features),), 1.0 / len(features)).double()
        if self.anchor == "retain" and task.retain is not None:
            kept = run.features(model, task.retain, statistics.mean)
            answer = torch.softmax(kept @ trained.T, dim=1)
            soft = self._soft(features, trained, statistics, left, gone, task, kept)
            targets = torch.cat([soft, answer])
            rows = torch.cat([features, kept])
            weights = torch.cat([weights, torch.full((len(kept),), 1.0 / len(kept)).double()])
        else:
            targets = self._soft(features, trained, statistics, left, gone, task, None)
        free = rows if head.has_bias else rows[:, :-1]
        width = free.shape[1]
        metric = (left.sums.gram + self._penalty(left)) * (self.strength / left.sums.rows)
        moved, steps, gradient = solve_anchored(
            free,
            targets,
            weights,
            trained[:, :width],
            metric[:width, :width],
            tolerance=self.tolerance,
        )
        run.log("solver_steps", steps)
        run.log("solver_gradient", gradient)
        if gradient > 10 * self.tolerance:
            run.note(f"the solver stopped at gradient {gradient:.1e}, above {self.tolerance:.0e}")
        full = torch.cat([moved, trained[:, width:]], dim=1)
        set_head_matrix(model, head, from_centred(full, statistics.mean))
        return model

    def _check(self, task: ForgetTask) -> None:
        if self.labels not in ("leave-out", "ridge-head", "mask", "paper"):
            raise InputError(
                'Expected `labels` to be "leave-out", "ridge-head", "mask" or "paper", got '
                f"{self.labels!r}."
            )
        if self.anchor not in ("statistics", "retain"):
            raise InputError(
                f'Expected `anchor` to be "statistics" or "retain", got {self.anchor!r}.'
            )
        if not self.strength > 0:
            raise InputError(
                f"Expected `strength` above 0, got {self.strength}. Without an anchor nothing "
                "holds the classes that stay."
            )
        if not self.ridge >= 0 or not self.refit_ridge > 0:
            raise InputError(
                f"Expected `ridge` from 0 and `refit_ridge` above 0, got {self.ridge} and "
                f"{self.refit_ridge}."
            )
        if task.aim != "absent":
            raise UnsupportedError(
                f'Expected aim "absent" for labels {self.labels!r}, got {task.aim!r}: these labels '
                "forbid the true class, and a retrained model still gets most records of a class "
                "that stays right."
            )

    def _penalty(self, left: FeatureStatistics) -> Float[Tensor, "columns columns"]:
        diagonal = torch.full((left.features + 1,), self.ridge * left.spread, dtype=torch.float64)
        diagonal[-1] = 0.0
        return torch.diag(diagonal)

    def _soft(
        self,
        features: Float[Tensor, "rows columns"],
        trained: Float[Tensor, "classes columns"],
        statistics: FeatureStatistics,
        left: FeatureStatistics,
        gone: Tensor,
        task: ForgetTask,
        kept: Float[Tensor, "retained columns"] | None,
    ) -> Float[Tensor, "rows classes"]:
        if self.labels == "mask":
            return mask_labels(features @ trained.T, gone)
        if self.labels == "paper":
            return paper_labels(features @ trained.T, gone)
        if self.labels == "ridge-head":
            return mask_labels(features @ (left.scale * left.ridge_head()).T, gone)
        if kept is None or task.retain is None:
            moved = left.scale * (left.ridge_head() - statistics.ridge_head())
            return mask_labels(features @ (trained + moved).T, gone)
        onehot = torch.nn.functional.one_hot(task.retain.labels, len(trained)).double()
        return mask_labels(features @ fit_head(kept, onehot, self.refit_ridge).T, gone)
