"""Logits read once, and the rates that judgements are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["Outputs", "hits", "masked", "most_known", "percent"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Logits of one model on the forget records and on judge rows (None without a holdout)."""

    forget: Float[Tensor, "forget classes"]
    judge: Float[Tensor, "judge classes"] | None


def masked(
    logits: Float[Tensor, "rows classes"], gone: frozenset[int]
) -> Float[Tensor, "rows classes"]:
    """The same logits with the forgotten outputs at −inf."""
    out = logits.clone()
    out[:, sorted(gone)] = -torch.inf
    return out


def hits(logits: Float[Tensor, "rows classes"], labels: Tensor) -> Bool[Tensor, " rows"]:
    """Whether each row is given its label."""
    return logits.argmax(1) == labels


def percent(hits: Bool[Tensor, " rows"]) -> float:
    """Share of true entries, in percent."""
    return 100.0 * float(hits.double().mean())


def most_known(logits: Float[Tensor, "rows classes"], labels: Tensor) -> float:
    """Accuracy in percent on the class that is recognised best: none may hide behind another."""
    right = hits(logits, labels)
    return max(percent(right[labels == c]) for c in labels.unique().tolist())
