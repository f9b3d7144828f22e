"""Least-squares removal: what exact removal does to a ridge head, carried over to the trained one.

The ridge regression head on the same features, B = C(G̃ + λJ)⁻¹, can be retrained without any
records exactly, from sums alone: B_r = (C − C_f)(G̃ − G_f + λJ)⁻¹. The difference is added to the
trained head: A' = A + s(B_r − B), where s matches B's logits to A's in least squares.

Equation: A' = A + s(B_r − B). Reference: none published in this form; it reads Naive Prototype
Surgery (ACM CCS 2025) as leverage-corrected removal, cf. C. Guo et al., "Certified Data Removal",
ICML 2020, arXiv 1911.03030, for the linear case. What we do differently: λ, s and the centring
mean are frozen in the statistics, so that removals add up and their order does not matter; J
leaves the intercept free. Exact where the deployed head is itself the ridge head (up to s); else
the record says `transplanted`.

    symbol  what it is                                      function
    A       the trained head in centred coordinates         statistics.sums.to_centred
    B, B_r  the ridge head of all rows, of those that stay  FeatureStatistics.ridge_head
    s       from B's logits to A's                          FeatureStatistics.scale
    λ       in the units of the Gram matrix                 FeatureStatistics.penalty
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from expunge.errors import UnsupportedError
from expunge.methods.base import Before, Method
from expunge.records import MethodInfo, Paper

if TYPE_CHECKING:
    from torch import nn

    from expunge.methods.run import Run
    from expunge.task import ForgetTask

__all__ = ["LeastSquaresRemoval"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquaresRemoval(Method):
    """Add to the head what removing the records changes in its ridge twin; λ is the statistics'."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="least-squares-removal",
        title="Least-squares removal",
        summary="exact removal from the ridge head, carried over to the trained head",
        paper=Paper(
            title="Certified Data Removal from Machine Learning Models (the linear case)",
            authors="C. Guo, T. Goldstein, A. Hannun, L. van der Maaten",
            venue="ICML 2020",
            link="https://arxiv.org/abs/1911.03030",
        ),
        needs=frozenset({"forget", "statistics", "head"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs",),
        cost="one pass over the forget set and two d×d solves",
        reads="the training rows once, where statistics are not given; else the forget rows once",
    )

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Refuse statistics that do not know which records they cover."""
        from expunge.methods.prototypes.refusals import refuse_without_ids

        refuse_without_ids(task)

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Add s(B_r − B) to the head."""
        from expunge.network.heads import head_matrix, set_head_matrix
        from expunge.statistics.sums import from_centred, to_centred

        if task.statistics is None:
            raise UnsupportedError("Expected feature statistics, got none.")
        head, statistics = run.needed_head, task.statistics
        forget = run.sums(model, task, statistics.mean)
        left = statistics.without(forget, task.forget.ids)
        before, after = statistics.ridge_head(), left.ridge_head()
        matrix = to_centred(head_matrix(model, head), statistics.mean)
        centred = matrix - matrix.mean(0)
        twin = statistics.scale * (before - before.mean(0))
        distance = float((centred - twin).norm() / centred.norm())
        run.log("distance_to_ridge_head", distance)
        if distance < 1e-5:
            run.note("exact: the head is the ridge head of these features")
        else:
            run.note(
                "transplanted: the head is not the ridge head of these features (relative "
                f"distance {distance:.2g}), so the removal is exact for the ridge head only"
            )
        moved = matrix + statistics.scale * (after - before)
        if not bool(moved.isfinite().all()):
            raise UnsupportedError("Expected finite statistics, got NaN or infinity.")
        set_head_matrix(model, head, from_centred(moved, statistics.mean))
        return model
