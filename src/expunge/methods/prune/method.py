"""PRUNE: a minimal patch a record, with a guarantee that a third party can check.

One gate a record opens on its penultimate features alone and shifts the logits to what the request
asks for; every retained row has every gate shut, so it keeps exactly its logits. For a whole class
the output row goes, which holds for every possible input. What was done is stated in a certificate
that a checker verifies without torch and without trust.

Equation: ℓ' = Wz + b + Δ·clip(Uz + c, 0, 1), u ∝ (Σ + εI)⁻¹(z − μ), c from the best retained score.

    symbol                what it is                          function
    z, ℓ                  features and logits of a row        scene.seen
    μ, Σ + εI             of the retained rows                gates.whiten (ε: `ridge`)
    u before its size     closed form                         gates.directions
    u before its size     max s: w·(x − x_r) ≥ s, ‖w‖∞ ≤ 1    separate.separate
    U, c                  opening between two scores          gates.opened_between
    gate open and shut    in any float32 order                fitting.fit_gates
    ℓ*                    target logits                       targets.draw_targets, forced_errors
    G                     gates on the records                gates.gate_values
    Δ                     G Δᵀ = ℓ* − ℓ                       gates.joint_shifts
    ρ                     |ℓ' − ℓ*|∞ ≤ ρ                      shifts.solve_shifts
    [W', b']              the merged form                     merging.merge
    [W, b] less a row     a class                             classes.without_rows

The story of a patch is told in `records`. The working modules are imported where work begins, so
that this one can be listed without torch.

Reference: X. Li, J. Wang, X. Yuan, P. Zhang, "PRUNE: A Patching Based Repair Framework for
Certifiable Unlearning of Neural Networks", arXiv 2505.06520. What we do differently: gates live on
the features that enter the last linear map, so any backbone serves, a gate is one row instead of a
copy of the network, and the default target is not a forced error (a leak, and not what retraining
does) but the outputs of data the model never saw. The patch of the paper is `prune-published`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

from expunge.certificate.terms import WIDEST
from expunge.errors import InputError
from expunge.methods.base import Before, Method
from expunge.methods.prune.paper import PAPER
from expunge.records import MethodInfo, Need, Scope
from expunge.settings import Count, NotNegative, Positive, Range

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.prune.published.method import PrunePublished
    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["Prune"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Method):
    """Patch single records so that the model treats them as unseen, or take a class's row away.

    `spec`: `unseen` (outputs of data never seen), `mispredict` (a forced error, as published), or
    `auto`: unseen. `form`: `gated` (one gate a record), `merged` (an edit of the head alone), or
    `auto`: merged where it fits at no more than 0.1 points of tune accuracy, tried up to d/4
    records and for `merge_seconds`. `tolerance` is the least ρ of |ℓ' − ℓ*|∞ ≤ ρ, `margin` the
    forced lead in logits, `jitter` how far targets are moved, `ridge` ε relative to the mean
    feature variance, `nearest` the first cuts of the linear program. `entangled`: what becomes of
    records that no gate separates: `refuse` (they are counted, and not forgotten), `forget-twins`
    (rows that stay and are the same input join the request), or `error`.
    """

    spec: Literal["auto", "unseen", "mispredict"] = "auto"
    form: Literal["auto", "gated", "merged"] = "auto"
    tolerance: Annotated[float, Range(above=0, most=WIDEST)] = 2.0**-10
    margin: Positive = 0.125
    jitter: NotNegative = 0.5
    ridge: NotNegative = 1e-3
    nearest: Count = 100
    merge_seconds: NotNegative = 5.0
    entangled: Literal["refuse", "forget-twins", "error"] = "refuse"

    info: ClassVar[MethodInfo] = MethodInfo(
        name="prune",
        title="PRUNE",
        summary="a certified patch a record, or the class's output row taken away",
        paper=PAPER,
        needs=frozenset({"forget", "head"}),
        aims=frozenset({"absent", "unseen"}),
        scopes=frozenset({"classes", "records"}),
        claims=("outputs",),
        structure="wraps",
        reach="rows",
        stochastic=True,
        cost="one pass over the training set; nothing for a class",
        reads="for records the forget rows, what stays and the tune rows, once each, and two "
        "forget rows once more; nothing for a class",
    )

    @classmethod
    def as_published(cls) -> PrunePublished:
        """The patch on exact linear regions of the paper, for ReLU MLPs; forces errors."""
        from expunge.methods.prune.published.method import PrunePublished

        return PrunePublished()

    def _extra_needs(self) -> frozenset[Need]:
        return frozenset({"retain", "holdout"})

    def needs_for(self, scope: Scope) -> frozenset[Need]:
        """A class needs nothing but the head; records need what stays, and rows never seen."""
        return self.info.needs if scope == "classes" else self.needs

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse forms that do not go together, heads that cannot go on, and lacking tune rows."""
        from expunge.methods.prune.refusals import refuse_head

        if self.form == "merged" and self.spec == "mispredict":
            raise InputError(
                'Expected `form` "gated" or "auto" with `spec` "mispredict", got "merged": an edit '
                "of the head alone is offered for `unseen` only."
            )
        if before.head is not None:
            refuse_head(model, before.head, task.scope, before, self.form)
        if task.scope == "records" and self.spec != "mispredict" and before.tune is not None:
            from expunge.methods.prune.targets import refuse_untargeted

            refuse_untargeted(task.forget.labels, before.tune.labels)
        if self.entangled == "error" and task.scope == "records":
            from expunge.methods.prune.leaving import refuse_identical

            refuse_identical(task)

    def widened(self, task: ForgetTask) -> ForgetTask:
        """The request with rows of the same inputs, where they are to be forgotten with it."""
        if self.entangled != "forget-twins" or task.scope == "classes":
            return task
        from expunge.methods.prune.leaving import with_twins

        return with_twins(task)

    def refused_by_data(self, task: ForgetTask) -> Mapping[int, str]:
        """The records that are the same input as a row that stays."""
        if task.scope == "classes":
            return {}
        from expunge.methods.prune.leaving import same_inputs

        return same_inputs(task)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Take the class's row away, or patch the records."""
        from expunge.methods.prune.classes import without_rows
        from expunge.methods.prune.records import patched

        if task.scope == "classes":
            return without_rows(model, task, run, self.info.name)
        return patched(model, task, run, self)
