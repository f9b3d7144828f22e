"""Distances between the output distributions of two classifiers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["agreement", "jensen_shannon"]


def jensen_shannon(
    first: Float[Tensor, "rows classes"], second: Float[Tensor, "rows classes"]
) -> Float[Tensor, " rows"]:
    """Jensen-Shannon divergence of softmax(first) and softmax(second) a row, in bits, in [0, 1].

    JS = ½ KL(p‖m) + ½ KL(q‖m), m = (p+q)/2, in float64 from log-softmax. Logits of −inf are
    probability zero.
    """
    p = torch.log_softmax(first.double(), dim=1)
    q = torch.log_softmax(second.double(), dim=1)
    mixed = torch.logaddexp(p, q) - math.log(2.0)
    half = _part(p, mixed) + _part(q, mixed)
    return (half.sum(1) / (2.0 * math.log(2.0))).clamp(0.0, 1.0)


def _part(
    log: Float[Tensor, "rows classes"], mixed: Float[Tensor, "rows classes"]
) -> Float[Tensor, "rows classes"]:
    """p·log(p/m), zero where p is zero; NaN stays NaN, so that it cannot pass for agreement."""
    return torch.where(log == -torch.inf, 0.0, log.exp() * (log - mixed))


def agreement(
    first: Float[Tensor, "rows classes"], second: Float[Tensor, "rows classes"]
) -> Bool[Tensor, " rows"]:
    """Whether both models give the row the same most likely class."""
    return first.argmax(1) == second.argmax(1)
