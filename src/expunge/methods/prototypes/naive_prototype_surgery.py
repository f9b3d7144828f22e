"""Naive Prototype Surgery: subtract from the prototypes what the forget records put there.

The trained head is read as its start plus one contribution per training record, W − W₀ = Θ F with
Θ = (W − W₀)F⁺; the forget records' contributions are taken out. With the Gram matrix G = FᵀF no
n×d matrix is needed: one d×d solve, and only sums over the forget set.

Equation (ours): W' = W − (W − W₀)(G + λI)⁻¹ G_f. Equation (as published): W' = W₀ + (W − W₀)
G⁺(G − G_f). Reference: Prototype Surgery, ACM CCS 2025.
What we do differently: the ridge λ = `ridge`·tr(G)/d, because rarely firing units make the plain
pseudo-inverse explode, and the first form, for which deleting nothing is exactly the identity; the
published form also drops, on deleting nothing, whatever part of W − W₀ lies outside the features'
span. W₀ is zero unless the initial weights are given. The bias stays, as published.

    symbol                     what it is                         function
    W                          the trained weight                 network.heads.head_matrix
    W₀                         the weight before training         _initial_weight
    G                          the Gram matrix of all rows        FeatureStatistics.uncentred_gram
    G_f                        G less that of the rows that stay  FeatureStatistics.uncentred_gram
    W − (W − W₀)(G + λI)⁻¹G_f  ours                               solve.naive_surgery
    W₀ + (W − W₀)G⁺(G − G_f)   as published                       solve.naive_surgery_published
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from expunge.errors import ModelError, UnsupportedError
from expunge.methods.base import Before, Method
from expunge.methods.prototypes.paper import PAPER
from expunge.records import MethodInfo
from expunge.settings import NotNegative

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor, nn

    from expunge.methods.run import Run
    from expunge.network.heads import Head
    from expunge.task import ForgetTask

__all__ = ["NaivePrototypeSurgery"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NaivePrototypeSurgery(Method):
    """Take the forget records' share out of the class prototypes in closed form.

    `ridge` is λ in units of tr(G)/d. `rows="own"` moves the forgotten classes' prototypes only.
    `form="published"` uses G⁺(G−G_f) with eigenvalues below `cutoff`·(largest) dropped, and no
    ridge; `as_published()` is that preset.
    """

    ridge: NotNegative = 1e-2
    rows: Literal["all", "own"] = "all"
    form: Literal["ridged", "published"] = "ridged"
    cutoff: NotNegative = 1e-12

    info: ClassVar[MethodInfo] = MethodInfo(
        name="naive-prototype-surgery",
        title="Naive Prototype Surgery",
        summary="subtract the forget records' part of the class prototypes, closed form",
        paper=PAPER,
        needs=frozenset({"forget", "statistics", "head"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        cost="one pass over the forget set and one d×d solve",
        reads="the training rows once, where statistics are not given; else the forget rows once",
    )

    @classmethod
    def as_published(cls) -> NaivePrototypeSurgery:
        """The published construction: no ridge, all rows, W₀ + (W − W₀)G⁺(G − G_f)."""
        return cls(form="published")

    @classmethod
    def small(cls) -> NaivePrototypeSurgery:
        """A larger ridge: few rows and features leave the Gram matrix of a toy nearly singular."""
        return cls(ridge=0.1)

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse statistics that know no records, and initial weights of another model."""
        from expunge.methods.prototypes.refusals import refuse_without_ids

        refuse_without_ids(task)
        if before.head is not None:
            _initial_weight(before.initial, before.head)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Edit the prototypes from the statistics and the sums of the forget rows."""
        import torch

        from expunge.methods.prototypes.solve import naive_surgery, naive_surgery_published
        from expunge.network.heads import head_matrix, set_head_matrix

        if task.statistics is None:
            raise UnsupportedError("Expected feature statistics, got none.")
        head, statistics = run.needed_head, task.statistics
        forget = run.sums(model, task, statistics.mean)
        gram = statistics.uncentred_gram()
        gram_forget = gram - statistics.without(forget, task.forget.ids).uncentred_gram()
        matrix = head_matrix(model, head)
        trained, given = matrix[:, :-1], _initial_weight(run.initial, head)
        if given is None:
            run.note("W₀ = 0: the initial weights were not given")
        start = torch.zeros_like(trained) if given is None else given
        if self.form == "published":
            edited = naive_surgery_published(trained, start, gram, gram_forget, self.cutoff)
        else:
            penalty = self.ridge * statistics.constants.diagonal
            edited = naive_surgery(trained, start, gram, gram_forget, penalty)
        chosen = sorted(task.classes) if self.rows == "own" else list(range(len(matrix)))
        matrix[chosen, :-1] = edited[chosen]
        set_head_matrix(model, head, matrix)
        return model


def _initial_weight(
    initial: Mapping[str, Tensor] | None, head: Head
) -> Float[Tensor, "classes features"] | None:
    """W₀ from the initial weights where they were kept; raises ModelError where they do not fit."""
    if initial is None:
        return None
    name = f"{head.name}.weight" if head.name else "weight"
    if name not in initial or tuple(initial[name].shape) != (head.classes, head.features):
        raise ModelError(
            f"Expected the initial weights to hold {name} of shape "
            f"{(head.classes, head.features)}, got "
            f"{tuple(initial[name].shape) if name in initial else 'no such tensor'}."
        )
    return initial[name].double().cpu()
