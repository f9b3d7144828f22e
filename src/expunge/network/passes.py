"""One streaming pass of a module over rows: logits, or the features that enter the head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.data.rows import Inputs, Rows
from expunge.network.answers import as_logits
from expunge.network.calls import call, frozen_statistics, to_device, tried
from expunge.network.heads import Head

__all__ = ["count_classes", "feature_batches", "logits_of"]


def feature_batches(
    model: nn.Module, head: Head, rows: Rows, *, batch_size: int, device: torch.device
) -> Iterator[tuple[Float[Tensor, "batch features"], Float[Tensor, "batch classes"], Tensor]]:
    """One streaming pass in eval mode: features h, logits z and labels, batch by batch.

    No hook outlives the pass, also where it ends early or the model raises.
    """
    caught: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0].detach())

    handle = head.of(model).register_forward_pre_hook(hook)
    try:
        with frozen_statistics(model):
            for inputs, labels in rows.batches(batch_size):
                caught.clear()
                with torch.no_grad():
                    logits = as_logits(call(model, to_device(inputs, device)))
                yield caught[-1], logits, labels
    finally:
        handle.remove()


def count_classes(model: nn.Module, inputs: Inputs, name: str) -> int:
    """How many logits the model gives a row of `name`."""
    with frozen_statistics(model), torch.no_grad():
        return int(as_logits(tried(model, inputs, name)).shape[1])


def logits_of(
    model: nn.Module, rows: Rows, *, batch_size: int, device: torch.device
) -> Float[Tensor, "rows classes"]:
    """Logits of every row in eval mode, float32 on the CPU."""
    parts: list[Tensor] = []
    with frozen_statistics(model), torch.no_grad():
        for inputs, _ in rows.batches(batch_size):
            parts.append(as_logits(call(model, to_device(inputs, device))).float().cpu())
    return torch.cat(parts)
