"""Heads that carry an edit a plain linear layer cannot: gates for single records, removed classes.

Both stand where the linear head stood, so that the model keeps its type, and hold everything as
registered tensors: a state dict holds the whole edit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from expunge.errors import ModelError

__all__ = [
    "PATCH_NAMES",
    "GatedLinear",
    "Narrow",
    "NarrowLinear",
    "export_narrow",
    "gated",
    "narrowed",
    "patched_like",
    "replaced",
]

PATCH_NAMES = ("gate_weight", "gate_bias", "shift", "kept")
"""Names of the tensors that a patched head holds beside weight and bias."""


@final
class GatedLinear(nn.Linear):
    """ℓ' = Wz + b + Δ·clip(Uz + c, 0, 1): a linear head with one gate a record.

    `gate_weight` U (P, d), `gate_bias` c (P,), `shift` Δ (K, P). Rows whose gates are all shut get
    exactly the logits of the plain head. The gates are parameters that do not train.
    """

    def __init__(
        self, features: int, classes: int, gates: int, *, bias: bool, like: Tensor | None = None
    ) -> None:
        dtype = None if like is None else like.dtype
        super().__init__(features, classes, bias=bias, dtype=dtype)
        self.gate_weight = _fixed(torch.zeros(gates, features, dtype=dtype))
        self.gate_bias = _fixed(torch.zeros(gates, dtype=dtype))
        self.shift = _fixed(torch.zeros(classes, gates, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear calls it so
        """Logits (batch, classes) of features (batch, d)."""
        gates = F.linear(input, self.gate_weight, self.gate_bias).clamp(0.0, 1.0)
        return super().forward(input) + F.linear(gates, self.shift)


@final
class NarrowLinear(nn.Linear):
    """A head without the rows of removed classes; it still gives K outputs, −inf at removed ones.

    `kept` holds the class ids that remain, in order. `plain()` is the K−k head itself.
    """

    kept: Tensor

    def __init__(
        self, features: int, kept: Tensor, classes: int, *, bias: bool, like: Tensor | None = None
    ) -> None:
        dtype = None if like is None else like.dtype
        super().__init__(features, len(kept), bias=bias, dtype=dtype)
        self.classes = classes
        self.register_buffer("kept", kept.clone())

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear calls it so
        """Logits (batch, K) of features (batch, d), −inf at removed classes."""
        # −∞ belongs to the removed classes alone, also where a kept logit overflows
        logits = super().forward(input).clamp_min(torch.finfo(input.dtype).min)
        out = logits.new_full((len(logits), self.classes), -torch.inf)
        return out.index_copy(1, self.kept, logits)

    def plain(self) -> nn.Linear:
        """A copy as nn.Linear with the remaining rows only."""
        layer = nn.Linear(
            self.in_features,
            self.out_features,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        layer.load_state_dict({n: t for n, t in self.state_dict().items() if n != "kept"})
        return layer.train(self.training)


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def replaced(model: nn.Module, name: str, head: nn.Module) -> nn.Module:
    """Put `head` where the submodule `name` is, in place; `head` itself for name ""."""
    if not name:
        return head
    above, _, own = name.rpartition(".")
    setattr(model.get_submodule(above), own, head)
    return model


def patched_like(model: nn.Module, name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """`model` with its head replaced by one that `state` fits; unchanged where it holds no patch.

    Raises ModelError where the model has no linear layer called `name`.
    """
    prefix = f"{name}." if name else ""
    if not any(prefix + n in state for n in PATCH_NAMES):
        return model
    old = dict(model.named_modules()).get(name)
    if old is None:
        raise ModelError(
            f"Expected the head {name!r} to be in the model that `factory` builds, got none of "
            "that name. The factory builds another architecture: pass the one of the run."
        )
    if not isinstance(old, nn.Linear):
        raise ModelError(
            f"Expected the head {name!r} to be nn.Linear, got {type(old).__name__}. The factory "
            "builds another architecture."
        )
    bias = old.bias is not None
    new: nn.Linear
    if prefix + "kept" in state:
        kept = state[prefix + "kept"]
        new = NarrowLinear(old.in_features, kept, old.out_features, bias=bias, like=old.weight)
    else:
        gates = len(state[prefix + "gate_bias"])
        new = GatedLinear(old.in_features, old.out_features, gates, bias=bias, like=old.weight)
    return replaced(model, name, new.to(old.weight.device).train(old.training))


@final
@dataclass(frozen=True, slots=True)
class Narrow:
    """A plain model without the removed outputs; output k stands for class id `classes[k]`."""

    model: nn.Module
    classes: tuple[int, ...]


def export_narrow(model: nn.Module) -> Narrow:
    """A copy of a model whose head lacks classes, with an nn.Linear of K − k outputs instead.

    Raises ModelError for a model that `Prune` did not narrow. The given model is not changed.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"Expected `model` to be an nn.Module, got {type(model).__name__}. Of a result, pass "
            "`result.model`."
        )
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, NarrowLinear)]
    if len(found) != 1:
        raise ModelError(
            f"Expected a model with one head that lacks classes, found {len(found)}. Forget a "
            "class with Prune first, and pass `result.model`."
        )
    name, head = found[0]
    copied = replaced(copy.deepcopy(model), name, head.plain())
    return Narrow(copied, tuple(int(c) for c in head.kept))


def gated(
    old: nn.Linear,
    gate_weight: Float[Tensor, "gates features"],
    gate_bias: Float[Tensor, " gates"],
    shift: Float[Tensor, "classes gates"],
) -> GatedLinear:
    """`old` with these gates appended to those it has; weight and bias are shared bit for bit."""
    parts = [(gate_weight, gate_bias, shift)]
    if isinstance(old, GatedLinear):
        parts.insert(0, (old.gate_weight, old.gate_bias, old.shift))
    like = old.weight
    weight, bias, moves = (
        torch.cat([p[i].detach().to(like) for p in parts], dim=1 if i == 2 else 0) for i in range(3)
    )
    new = GatedLinear(
        old.in_features, old.out_features, len(bias), bias=old.bias is not None, like=like
    ).to(like.device)
    state = {n: t for n, t in old.state_dict().items() if n in ("weight", "bias")}
    new.load_state_dict({**state, "gate_weight": weight, "gate_bias": bias, "shift": moves})
    return new.train(old.training)


def narrowed(old: nn.Linear, removed: frozenset[int], classes: int) -> NarrowLinear:
    """`old` without the rows of `removed`; those it lacks already stay out."""
    present = old.kept if isinstance(old, NarrowLinear) else torch.arange(classes)
    stays = torch.tensor([int(c) not in removed for c in present.tolist()])
    kept = present.cpu()[stays]
    new = NarrowLinear(
        old.in_features, kept, classes, bias=old.bias is not None, like=old.weight
    ).to(old.weight.device)
    with torch.no_grad():
        rows = stays.to(old.weight.device)
        new.weight.copy_(old.weight[rows])
        if old.bias is not None:
            new.bias.copy_(old.bias[rows])
    return new.train(old.training)
