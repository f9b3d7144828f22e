"""Run somebody's module: a batch of inputs in, its answer out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Inputs
from expunge.errors import ModelError

__all__ = ["call", "frozen_statistics", "to_device", "tried", "unwritten"]


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


@contextmanager
def unwritten(model: nn.Module) -> Iterator[None]:
    """After the block every buffer is what it was before: the same tensor with the same values."""
    before = [
        (module, {n: (t, None if t is None else t.detach().clone()) for n, t in own.items()})
        for module in model.modules()
        for own in (module._buffers,)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, buffers in before:
                for name, (tensor, values) in buffers.items():
                    if tensor is not None and values is not None and _differ(tensor, values):
                        tensor.copy_(values)
                    module._buffers[name] = tensor
                for name in [n for n in module._buffers if n not in buffers]:
                    del module._buffers[name]


def _differ(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one dtype differ in shape or in a value; NaN equals NaN."""
    if one.shape != other.shape:
        return True
    return not bool(((one == other) | ((one != one) & (other != other))).all())


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
