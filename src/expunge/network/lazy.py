"""Lazy layers: their weights take shape at the first forward pass."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from expunge.data.rows import Inputs
from expunge.network.calls import frozen_statistics, tried

__all__ = ["awakened", "lazy_layers"]


def lazy_layers(model: nn.Module) -> list[str]:
    """Names of layers that have seen no row yet."""
    return [
        n
        for n, m in model.named_modules()
        if isinstance(m, LazyModuleMixin) and getattr(m, "cls_to_become", None) is not None
    ]


def awakened(model: nn.Module, inputs: Inputs) -> nn.Module:
    """`model` after one dry forward pass in eval mode, in place: every layer has its shape."""
    with frozen_statistics(model), torch.no_grad():
        tried(model, inputs)
    return model
