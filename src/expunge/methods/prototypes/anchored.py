"""What Prototype Surgery solves: features, soft labels, and the metric that holds what stays.

Rows are centred, bias-augmented features h̃ in float64; the trained head A* stands in the same
coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expunge.errors import UnsupportedError
from expunge.methods.prototypes.solve import fit_head, mask_labels, paper_labels
from expunge.methods.run import Run
from expunge.network.heads import head_matrix
from expunge.statistics.features import FeatureStatistics
from expunge.statistics.sums import Sums, to_centred
from expunge.task import ForgetTask

__all__ = ["Problem", "metric_of", "problem_of", "soft_labels", "system_of"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """The forget rows' features, the trained head A*, statistics of all rows and of what stays.

    `kept` has the features and labels of the rows that stay, where they serve as anchor.
    """

    features: Float[Tensor, "rows columns"]
    trained: Float[Tensor, "classes columns"]
    gone: Bool[Tensor, " classes"]
    statistics: FeatureStatistics
    left: FeatureStatistics
    kept: tuple[Float[Tensor, "retained columns"], Int[Tensor, " retained"]] | None
    has_bias: bool


def problem_of(
    model: nn.Module, task: ForgetTask, run: Run, anchor: Literal["statistics", "retain"]
) -> Problem:
    """Read the features of the forget rows, and of what stays where it is the anchor."""
    statistics, head = task.statistics, run.needed_head
    if statistics is None:
        raise UnsupportedError("Expected feature statistics, got none.")
    gone = torch.ones(run.classes, dtype=torch.bool)
    gone[list(run.kept)] = False
    features = run.features(model, task.forget, statistics.mean)
    forget = Sums.of(features, task.forget.labels, head.classes)
    run.summed(forget)
    kept = None
    if anchor == "retain" and task.retain is not None:
        kept = run.features(model, task.retain, statistics.mean), task.retain.labels
    return Problem(
        features=features,
        trained=to_centred(head_matrix(model, head), statistics.mean),
        gone=gone,
        statistics=statistics,
        left=statistics.without(forget, task.forget.ids),
        kept=kept,
        has_bias=head.has_bias,
    )


def soft_labels(
    problem: Problem,
    labels: Literal["leave-out", "ridge-head", "mask", "paper"],
    refit_penalty: float,
) -> Float[Tensor, "rows classes"]:
    """q: the answers of a head that never saw the class, or of one of the other kinds."""
    features, trained, left = problem.features, problem.trained, problem.left
    if labels == "mask":
        return mask_labels(features @ trained.T, problem.gone)
    if labels == "paper":
        return paper_labels(features @ trained.T, problem.gone)
    if labels == "ridge-head":
        return mask_labels(features @ (left.scale * left.ridge_head()).T, problem.gone)
    if problem.kept is None:
        moved = left.scale * (left.ridge_head() - problem.statistics.ridge_head())
        return mask_labels(features @ (trained + moved).T, problem.gone)
    kept, of_kept = problem.kept
    onehot = torch.nn.functional.one_hot(of_kept, len(trained)).double()
    return mask_labels(features @ fit_head(kept, onehot, refit_penalty).T, problem.gone)


def system_of(
    problem: Problem, soft: Float[Tensor, "rows classes"]
) -> tuple[Float[Tensor, "all columns"], Float[Tensor, "all classes"], Float[Tensor, " all"]]:
    """Rows, labels and weights of the problem; what stays keeps the trained head's own answers."""
    n = len(problem.features)
    weights = torch.full((n,), 1.0 / n).double()
    if problem.kept is None:
        return problem.features, soft, weights
    kept, _ = problem.kept
    answer = torch.softmax(kept @ problem.trained.T, dim=1)
    more = torch.full((len(kept),), 1.0 / len(kept)).double()
    return (
        torch.cat([problem.features, kept]),
        torch.cat([soft, answer]),
        torch.cat([weights, more]),
    )


def metric_of(problem: Problem, ridge: float, strength: float) -> Float[Tensor, "columns columns"]:
    """μ·Ĝ_λ = μ·(G̃_r + λJ)/n_r, with λ = `ridge` times the mean variance of the features."""
    left = problem.left
    diagonal = torch.full((left.features + 1,), ridge * left.constants.spread, dtype=torch.float64)
    diagonal[-1] = 0.0
    return (left.sums.gram + torch.diag(diagonal)) * (strength / left.sums.rows)
