"""The model as its stored bytes give it back: that one is judged, and that one the caller gets.

A module in memory can answer otherwise than its weights: a `forward` put on the instance, a plain
tensor as an attribute, a buffer that is not stored. Whoever loads the file gets none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.errors import ModelError
from expunge.network.answers import as_logits
from expunge.network.calls import frozen_statistics, to_device, tried
from expunge.network.copying import copied
from expunge.network.rebuilding import bare, rebuilt
from expunge.network.state import layout_of, restore_layout
from expunge.network.weights import build, from_bytes, load_weights, to_bytes
from expunge.runtime.randomness import isolated
from expunge.unlearning.promises import Edited, described
from expunge.unlearning.request import Request

__all__ = ["Stored", "empty_for", "greatest", "in_memory", "moved", "stored"]


MASKED = 1e3
"""A logit so many times larger than the middle one stands for an output that is masked."""

ROUNDING = 1e-5
"""Logits that differ by less than this share of the largest one differ by rounding."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """The edit as its bytes give it back, beside the module `worked` that the method returned.

    Where the bytes fit no model at hand `unfit` says why, and `edited` is the module in memory.
    """

    edited: Edited
    worked: nn.Module
    unfit: str | None = None


def empty_for(request: Request, factory: Callable[[], nn.Module] | None) -> nn.Module:
    """A plain model to load the edited weights into, made before the edit.

    By `factory` under the run's seed, or a copy of the given model without the patches of earlier
    requests. Raises ModelError for a factory that builds another architecture than the given one.
    """
    if factory is None:
        return bare(copied(request.model))
    with isolated(request.means.seed, torch.device("cpu")):
        made = build(factory)
    if not request.plain or request.method.info.structure == "wraps":
        return made
    given = {n: t for n, t in request.model.state_dict().items() if isinstance(t, Tensor)}
    return load_weights(made, given, source="the given model")


def stored(request: Request, empty: nn.Module, edited: Edited) -> Stored:
    """Write the edited weights as a run folder holds them, and read them back into `empty`."""
    worked = edited.model
    head = None if request.head is None else request.head.name
    try:
        state = from_bytes(to_bytes(worked))
        model = rebuilt(empty, head, state, source="the stored weights").to(edited.home)
    except ModelError as error:
        return Stored(edited=edited, worked=worked, unfit=_unfit(error))
    restore_layout(model, layout_of(worked))
    found = described(request, model, edited.structure, edited.home, edited.evidence)
    return Stored(edited=found, worked=worked)


def _unfit(error: ModelError) -> str:
    return (
        "the stored weights could not be rebuilt (where the method returns a module of its own, "
        f"pass a `factory` that builds it): {error}"
    )


def in_memory(
    request: Request, stored: Stored, expected: Float[Tensor, "forget classes"]
) -> tuple[str, ...]:
    """A note where the module in memory answers otherwise than its stored weights do.

    `expected` are the logits of the forget rows by the stored weights; a few rows are compared.
    """
    if stored.unfit is not None:
        return (f"the stored weights were not judged: {stored.unfit}",)
    rows = request.task.forget
    places = torch.linspace(0, len(rows) - 1, _few(len(rows))).long()
    device = request.means.device
    inputs, _ = rows.batch(places)
    here = to_device(inputs, device)
    try:
        said = _answers(stored.worked.to(device), here)
        if not moved(expected[places], said, greatest(expected)):
            return ()
        # kernels may differ with the size of a batch: once more, side by side
        alike = _answers(stored.edited.model.to(device), here)
        stored.edited.model.to(stored.edited.home)
        if not moved(alike, said, greatest(expected)):
            return ()
        what = f"{int(_far(alike, said, greatest(expected)).any(1).sum())} of {len(places)} rows"
        how = f"on {what} looked at"
    except ModelError as error:
        how = str(error)
    note = f"the model in memory answers otherwise than the stored weights: {how}; the stored ones"
    return (f"{note} are judged, and are what comes back",)


def _few(rows: int) -> int:
    return min(rows, 64, max(8, rows // 20))


def _answers(model: nn.Module, inputs: object) -> Float[Tensor, "rows classes"]:
    with frozen_statistics(model), torch.no_grad():
        return as_logits(tried(model, inputs, "the forget rows")).float().cpu()  # type: ignore[arg-type]


def greatest(logits: Float[Tensor, "rows classes"]) -> float:
    """The largest absolute logit; removed classes (−∞) and outputs masked by a number do not count.

    Masked is what lies a thousand times farther from 0 than the middle one: −1e9 for a padded class
    is no scale of an answer.
    """
    finite = logits[torch.isfinite(logits)].abs()
    usual = finite[finite <= MASKED * finite.median()] if finite.numel() else finite
    return float(usual.max()) if usual.numel() else 0.0


def moved(
    before: Float[Tensor, "rows classes"], after: Float[Tensor, "rows classes"], largest: float
) -> bool:
    """Whether some logit moved by more than rounding, 1e-5 of the largest; to or from −∞ too."""
    return bool(_far(before, after, largest).any())


def _far(before: Tensor, after: Tensor, largest: float) -> Tensor:
    if before.shape != after.shape:
        return torch.ones_like(before, dtype=torch.bool)
    same = before == after  # −∞ − −∞ is no number
    return ~(same | ((after - before).abs() <= ROUNDING * largest))
