"""Run somebody's module: a batch of inputs in, its answer out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Inputs
from expunge.errors import ModelError

__all__ = ["call", "frozen_statistics", "to_device", "tried"]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Put the whole module in eval mode inside, restore each mode after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move a batch of inputs."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return {name: value.to(device) for name, value in inputs.items()}


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run the model on a batch: a tensor by position, named tensors as keyword arguments."""
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def tried(model: nn.Module, inputs: Inputs, name: str = "the data") -> Any:
    """`call`, the first time: what the model raises on the user's rows becomes a ModelError."""
    try:
        return call(model, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        parts = {"": inputs} if isinstance(inputs, Tensor) else inputs
        got = ", ".join(f"{n} {tuple(t.shape)} {t.dtype}".strip() for n, t in parts.items())
        raise ModelError(
            f"Expected the model to run on rows of {name} (a batch of {got}), but it raised "
            f"{type(error).__name__}: {error}. Make the data set give what the model was trained "
            "on: shape, dtype, normalisation."
        ) from error
