"""Whether a model is a plain ReLU MLP, so that a claim about it can start at the input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expunge.certificate.facts import Layer
from expunge.data.rows import Inputs, Rows
from expunge.network.answers import as_logits
from expunge.network.calls import call, to_device
from expunge.network.heads import Head

__all__ = ["layers_before"]


def layers_before(model: nn.Module, head: Head, rows: Rows, device: torch.device) -> list[Layer]:
    """The layers before the head of a plain ReLU MLP, or none for any other model.

    Plain means: nothing but Flatten, Linear, ReLU, Dropout and Identity runs before the head, in
    the order of registration, tried on two rows, bit for bit.
    """
    layers: list[Layer] = []
    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    probe, _ = rows.batch(torch.arange(min(2, len(rows))))
    plain = len(leaves) > 1 and leaves[-1][0] == head.name and isinstance(probe, Tensor)
    if not plain or probe.dtype != torch.float32:  # type: ignore[union-attr]
        return []
    known = {n: t for n, t in model.state_dict().items() if isinstance(t, Tensor)}
    for name, module in leaves[:-1]:
        if isinstance(module, nn.Linear):
            bias = f"{name}.bias" if module.bias is not None else None
            layers.append(Layer(op="linear", weight=f"{name}.weight", bias=bias))
            named = [n for n in (f"{name}.weight", bias) if n is not None]
            if any(n not in known or known[n].dtype != torch.float32 for n in named):
                return []
        elif isinstance(module, nn.ReLU):
            layers.append(Layer(op="relu"))
        elif not isinstance(module, (nn.Flatten, nn.Dropout, nn.Identity)):
            return []
    if not layers or layers[0].op != "linear":
        return []
    return layers if _runs_in_order(model, [m for _, m in leaves], to_device(probe, device)) else []


def _runs_in_order(model: nn.Module, leaves: Sequence[nn.Module], inputs: Inputs) -> bool:
    """Whether the model is its leaves one after the other, tried on these inputs, bit for bit."""
    if not isinstance(inputs, Tensor):
        return False
    with torch.no_grad():
        value = inputs.flatten(1)
        for module in leaves:
            if isinstance(module, nn.Linear) and value.shape[-1] != module.in_features:
                return False  # branches, or rows of tokens
            value = value if isinstance(module, nn.Flatten) else module(value)
        return torch.equal(value, as_logits(call(model, inputs)))
