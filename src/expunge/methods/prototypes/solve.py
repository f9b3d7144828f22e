"""Closed forms and the convex problem behind edits of the final linear layer.

Features h are rows of F (n, d); h̃ = [h; 1]; the head is A = [W, b] (K, d+1). G = FᵀF. Index f is
the forget set, r what stays. Everything is float64 and deterministic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from torch import Tensor

__all__ = [
    "fit_head",
    "mask_labels",
    "naive_surgery",
    "naive_surgery_published",
    "paper_labels",
    "solve_anchored",
]

Array = npt.NDArray[np.float64]


def naive_surgery(
    trained: Float[Tensor, "classes features"],
    initial: Float[Tensor, "classes features"],
    gram: Float[Tensor, "features features"],
    gram_forget: Float[Tensor, "features features"],
    penalty: float,
) -> Float[Tensor, "classes features"]:
    """W' = W − (W−W₀)(G+λI)⁻¹G_f, with λ = `penalty`; deleting nothing is the identity."""
    damped = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
    share: Tensor = torch.linalg.solve(damped, gram_forget)
    return trained - (trained - initial) @ share


def naive_surgery_published(
    trained: Float[Tensor, "classes features"],
    initial: Float[Tensor, "classes features"],
    gram: Float[Tensor, "features features"],
    gram_forget: Float[Tensor, "features features"],
    cutoff: float,
) -> Float[Tensor, "classes features"]:
    """W' = W₀ + (W−W₀)G⁺(G−G_f), as published: Θ = (W−W₀)F⁺, W' = W₀ + Θ_r F_r.

    Eigenvalues of G below `cutoff`·(the largest) count as zero. The published pseudo-inverse cuts
    singular values of F below c·(the largest); the same cut here is `cutoff` = c².
    """
    values, vectors = torch.linalg.eigh(gram)
    kept = values > cutoff * values[-1]
    inverse = torch.where(kept, 1.0 / torch.where(kept, values, 1.0), 0.0)
    pseudo = (vectors * inverse) @ vectors.T
    return initial + (trained - initial) @ pseudo @ (gram - gram_forget)


def mask_labels(
    logits: Float[Tensor, "rows classes"], gone: Bool[Tensor, " classes"]
) -> Float[Tensor, "rows classes"]:
    """Soft labels: softmax over the classes that stay, nothing on those that are gone.

    With `logits` of the trained head these are the mask's own answers; with those of a head that
    never saw the class, leave-out labels (what little mass it leaves there is an artefact).
    """
    return torch.softmax(logits.masked_fill(gone, -torch.inf), dim=1)


def paper_labels(
    logits: Float[Tensor, "rows classes"], gone: Bool[Tensor, " classes"]
) -> Float[Tensor, "rows classes"]:
    """The published soft labels: the true logit is shared between the two runners-up.

    With δ the largest logit among the forgotten classes, a and b the best two that stay and
    π = softmax(z_a, z_b): z_a += π_a δ, z_b += π_b δ, forgotten ones to −∞, then softmax. The
    released code looks for the runners-up with the true logit set to 0 instead of −∞, so that the
    class can be its own runner-up; here it cannot.
    """
    shared = logits.masked_fill(~gone, -torch.inf).amax(1, keepdim=True)
    rest = logits.masked_fill(gone, -torch.inf)
    two = min(2, int((~gone).sum()))
    best, where = rest.topk(two, dim=1)
    lifted = rest.scatter_add(1, where, torch.softmax(best, dim=1) * shared)
    return torch.softmax(lifted, dim=1)


class _Objective:
    """A convex objective: called with A, returns its value and gradient."""

    __slots__ = ("anchor", "features", "labels", "metric", "weights")

    def __init__(
        self,
        features: Float[Tensor, "rows columns"],
        labels: Float[Tensor, "rows classes"],
        weights: Float[Tensor, " rows"],
        anchor: Float[Tensor, "classes columns"],
        metric: Float[Tensor, "columns columns"],
    ) -> None:
        self.features = features
        self.labels = labels
        self.weights = weights
        self.anchor = anchor
        self.metric = metric

    def __call__(
        self, matrix: Float[Tensor, "classes columns"]
    ) -> tuple[float, Float[Tensor, "classes columns"]]:
        logits = self.features @ matrix.T
        norms = torch.logsumexp(logits, dim=1)
        cross = norms - (self.labels * logits).sum(1)
        residual = (torch.exp(logits - norms[:, None]) - self.labels) * self.weights[:, None]
        pull = (matrix - self.anchor) @ self.metric
        value = float((self.weights * cross).sum() + 0.5 * ((matrix - self.anchor) * pull).sum())
        return value, residual.T @ self.features + pull


def _whitened_minimise(
    start: Float[Tensor, "classes columns"],
    metric: Float[Tensor, "columns columns"],
    objective: _Objective,
    tolerance: float,
    most: int,
) -> tuple[Float[Tensor, "classes columns"], int, float]:
    values, vectors = torch.linalg.eigh(metric)
    values = values.clamp_min(1e-12 * float(values[-1]))
    to_matrix = (vectors * values.rsqrt()) @ vectors.T

    def matrix_of(flat: Array) -> Tensor:
        return start + torch.from_numpy(flat).view(start.shape) @ to_matrix

    def evaluate(flat: Array) -> tuple[float, Array]:
        value, gradient = objective(matrix_of(flat))
        return value, (gradient @ to_matrix).flatten().numpy()

    found = minimize(
        evaluate,
        np.zeros(start.numel()),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": tolerance, "ftol": 0.0, "maxiter": most, "maxfun": 2 * most, "maxcor": 20},
    )
    return matrix_of(found.x), int(found.nit), float(np.abs(found.jac).max())


def solve_anchored(
    features: Float[Tensor, "rows columns"],
    labels: Float[Tensor, "rows classes"],
    weights: Float[Tensor, " rows"],
    anchor: Float[Tensor, "classes columns"],
    metric: Float[Tensor, "columns columns"],
    *,
    tolerance: float = 1e-6,
    most: int = 2000,
) -> tuple[Float[Tensor, "classes columns"], int, float]:
    """argmin_A Σ w_i CE(q_i, softmax(A h̃_i)) + ½ tr[(A−A*) M (A−A*)ᵀ]: (A, steps, gradient).

    Convex; solved by L-BFGS in coordinates whitened by Böhning's bound of the Hessian
    (½ Σ w h̃h̃ᵀ + M), from A*, until the largest entry of the whitened gradient is below
    `tolerance`. Deterministic, no learning rate. M must be positive definite.
    """
    bound = 0.5 * (features * weights[:, None]).T @ features + metric
    objective = _Objective(features, labels, weights, anchor, metric)
    return _whitened_minimise(anchor, bound, objective, tolerance, most)


def fit_head(
    features: Float[Tensor, "rows columns"],
    labels: Float[Tensor, "rows classes"],
    penalty: float,
    *,
    tolerance: float = 1e-5,
    most: int = 500,
) -> Float[Tensor, "classes columns"]:
    """Softmax regression from zero with ½·`penalty`·‖W‖² (the last column, b, is free).

    From zero on purpose: refitted from a trained head, one that still recognises the class comes
    back, since nothing in the retained data pushes it out.
    """
    diagonal = torch.full((features.shape[1],), penalty, dtype=torch.float64)
    diagonal[-1] = 1e-8
    start = torch.zeros(labels.shape[1], features.shape[1], dtype=torch.float64)
    weights = torch.full((len(features),), 1.0 / len(features), dtype=torch.float64)
    matrix, _, _ = solve_anchored(
        features, labels, weights, start, torch.diag(diagonal), tolerance=tolerance, most=most
    )
    return matrix
