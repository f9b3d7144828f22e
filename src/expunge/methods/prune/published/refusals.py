"""What PRUNE as published cannot serve: other patches, other models, named or integer inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.errors import UnsupportedError
from expunge.methods.prune.mlp import read_mlp, within_1e_5
from expunge.methods.prune.twins import find_twins
from expunge.patches.heads import GatedLinear, NarrowLinear
from expunge.patches.regions import inside
from expunge.task import ForgetTask

__all__ = ["refuse_published"]


def refuse_published(model: nn.Module, task: ForgetTask) -> None:
    """Raise where this request on this model cannot be served; the model is tried on two rows."""
    edited = [m for m in model.modules() if isinstance(m, (GatedLinear, NarrowLinear))]
    if edited:
        raise UnsupportedError(
            "Expected a model without other patches for prune-published, got a "
            f"{type(edited[0]).__name__} of an earlier request. Start from the original model with "
            "the records of all requests, or retrain."
        )
    few, _ = task.forget.batch(torch.arange(min(2, len(task.forget))))
    if not isinstance(few, Tensor):
        raise UnsupportedError(
            "Expected one input tensor a row for prune-published, got named tensors. Use prune."
        )
    if not few.is_floating_point():
        raise UnsupportedError(
            f"Expected floating inputs for prune-published, got {few.dtype}: linear regions are "
            "of real inputs. Scale them to floats in the data set, or use prune."
        )
    read_mlp(inside(model), few, within_1e_5)
    if task.scope == "records":
        find_twins(task.forget, None)
