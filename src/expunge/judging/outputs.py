"""Logits read once, and the rates that judgements are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expunge.records import Limits, Reach

__all__ = ["Beside", "Judged", "Outputs", "Sight", "hits", "masked", "most_known", "percent"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Logits of one model on the forget records and on judge rows (None without a holdout)."""

    forget: Float[Tensor, "forget classes"]
    judge: Float[Tensor, "judge classes"] | None

    @property
    def undefined(self) -> bool:
        """Whether there is a NaN or +∞ among them; −∞ stands for a class that is gone."""
        parts = (self.forget, self.judge)
        return any(bool((torch.isnan(z) | (z == torch.inf)).any()) for z in parts if z is not None)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """One way to look at the rows: as they are stored, or as changed copies, one or more a row.

    What the model before, the one after, and each reference answer, an `Outputs` a copy.
    """

    before: tuple[Outputs, ...]
    after: tuple[Outputs, ...]
    references: tuple[tuple[Outputs, ...], ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beside:
    """What is known beside the stored rows of a request for records, where it could be read.

    `copies` by name; `retained`, rows that stay as the model before answers them, with
    `retained_labels`; how far the method reaches; whether it trained a model anew.
    """

    copies: Mapping[str, Sight] = field(default_factory=dict)
    retained: Float[Tensor, "retained classes"] | None = None
    retained_labels: Int[Tensor, " retained"] | None = None
    reach: Reach = "model"
    trained_anew: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What a judgement looks at: one request's rows, read with the given and the edited model.

    `labels` (n_f,) are those of the forget rows, `judge_labels` those of the judge rows (None
    without a holdout); `gone` are the classes of this and all earlier requests. `references` are
    retrained models that are shown to be independent.
    """

    before: Outputs
    after: Outputs
    labels: Int[Tensor, " forget"]
    judge_labels: Int[Tensor, " judge"] | None
    gone: frozenset[int]
    limits: Limits
    references: tuple[Outputs, ...] = ()
    beside: Beside = field(default_factory=Beside)


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
