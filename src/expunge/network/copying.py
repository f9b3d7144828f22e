"""Copies of modules, also of those that hold weights made from others."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from expunge.errors import ModelError

__all__ = ["copied"]


def copied(model: nn.Module) -> nn.Module:
    """A deep copy without gradients; raises ModelError where there can be none.

    Tensors that a module holds as plain attributes with a graph (the weight that `weight_norm`,
    `spectral_norm` or a pruning mask makes anew before each pass) are copied without it.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            "Expected a model that can be copied, but copy.deepcopy raised "
            f"{type(error).__name__}: {error}. Remove hooks and graph tensors from it."
        ) from error
    for parameter in made.parameters():
        parameter.grad = None
    return made
