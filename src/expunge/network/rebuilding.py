"""From stored tensors back to a model: what a fresh process does, and the door before it judges."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from expunge.network.weights import load_weights
from expunge.patches.heads import GatedLinear, NarrowLinear, patched_like, replaced
from expunge.patches.regions import inside, rebuild

__all__ = ["bare", "rebuilt"]


def rebuilt(
    empty: nn.Module, head: str | None, state: Mapping[str, Tensor], *, source: str
) -> nn.Module:
    """`empty`, a plain model, with the patches that `state` asks for, holding `state`.

    `head` is the name of its final linear layer, where it has one; `source` names the file in
    messages. `empty` is used up. Raises ModelError where `state` does not fit.
    """
    if {"active", "owner"} <= set(state):
        fitting: nn.Module = rebuild(empty, state)
    elif head is None:
        fitting = empty
    else:
        fitting = patched_like(empty, head, state)
    return load_weights(fitting, state, source=source)


def bare(model: nn.Module) -> nn.Module:
    """`model` without the patches of earlier requests, in place: what a plain state dict fits.

    Weights below the patches stay as they are; a head that was patched gets new ones.
    """
    inner = inside(model)
    patched = [
        (n, m) for n, m in inner.named_modules() if isinstance(m, (GatedLinear, NarrowLinear))
    ]
    for name, layer in patched:
        inner = replaced(inner, name, _plain(layer))
    return inner


def _plain(layer: GatedLinear | NarrowLinear) -> nn.Linear:
    classes = layer.classes if isinstance(layer, NarrowLinear) else layer.out_features
    weight = layer.weight
    plain = nn.Linear(
        layer.in_features,
        classes,
        bias=layer.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    return plain.train(layer.training)
