"""The one training loop of the library, and the recipe value that configures it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.data.rows import Inputs
from expunge.data.views import as_rows
from expunge.errors import InputError, MethodError
from expunge.network.answers import as_logits
from expunge.network.calls import call, to_device
from expunge.settings import Count, NotNegative, Positive, check_settings, plain

__all__ = ["Fit", "Recipe", "Schedule", "Training", "Transform", "descend"]


Schedule = Literal["constant", "cosine", "step"]


Transform = Callable[[Inputs, torch.Generator], Inputs]
"""Augmentation of one batch: `transform(inputs, generator) -> inputs`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train from scratch with SGD; a value that can be called as a `Fit`.

    `schedule`: `constant`, `cosine` to zero, or `step` (×0.1 at half and three quarters).
    """

    epochs: Count = 30
    batch_size: Count = 128
    lr: Positive = 0.1
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 5e-4
    schedule: Schedule = "cosine"
    transform: Transform | None = None

    def __call__(
        self, model: nn.Module, dataset: Any, *, generator: torch.Generator, device: torch.device
    ) -> nn.Module:
        """Train `model` on `dataset` and return it in eval mode."""
        return descend(model, dataset, plain(self), generator=generator, device=device)


def _rate(recipe: Recipe, step: int, steps: int) -> float:
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * step / steps))
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** ((step >= steps // 2) + (step >= 3 * steps // 4))
    return recipe.lr


def descend(
    model: nn.Module,
    dataset: Any,
    recipe: Recipe,
    *,
    generator: torch.Generator,
    device: torch.device,
    on_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Minimise cross-entropy by SGD in train mode; order and augmentation come from `generator`.

    A last batch of one row is left out, since batch norm cannot use it. Raises MethodError if the
    loss stops being finite, and InputError for a recipe that cannot be followed.
    """
    check_settings(recipe)
    rows = as_rows(dataset)
    if not len(rows):
        raise InputError("Expected at least one row to train on, got none. Give training data.")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError(
            "Expected a model with some parameters to train, got none with `requires_grad`. "
            "Unfreeze a layer."
        )
    optimiser = torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    per_epoch = math.ceil(len(rows) / recipe.batch_size)
    model.to(device).train()
    step = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(rows), generator=generator)
        total = torch.zeros((), device=device)
        for inputs, labels in rows.batches(recipe.batch_size, order):
            for group in optimiser.param_groups:
                group["lr"] = _rate(recipe, step, recipe.epochs * per_epoch)
            step += 1
            if len(labels) < min(2, recipe.batch_size):
                continue
            if recipe.transform is not None:
                inputs = recipe.transform(inputs, generator)
            loss = F.cross_entropy(
                as_logits(call(model, to_device(inputs, device))), labels.to(device)
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(labels)
        mean = _finite(total / len(rows), epoch)
        if on_epoch is not None:
            on_epoch(epoch, mean)
    optimiser.zero_grad(set_to_none=True)
    return model.eval()


def _finite(loss: Tensor, epoch: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise MethodError(
            f"Expected a finite training loss, got {value} in epoch {epoch + 1}. Lower `lr`."
        )
    return value


class Fit(Protocol):
    """How a model is trained: `fit(model, dataset, *, generator, device) -> nn.Module`."""

    def __call__(
        self, model: nn.Module, dataset: Any, *, generator: torch.Generator, device: torch.device
    ) -> nn.Module:
        """Train `model` on `dataset` (map-style, items (x, y)) and return it."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Training:
    """How the model was made: `factory()` gives a fresh one, `fit` trains it.

    `Retrain` starts from `factory()` under the run's seed, never from a reset of the given model.
    """

    factory: Callable[[], nn.Module]
    fit: Fit
