"""A model on a device, without moving the user's own."""

from __future__ import annotations

import torch
from torch import nn

from expunge.network.copying import copied
from expunge.network.state import device_of

__all__ = ["placed"]


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model where it is on `device` already, or else a copy of it there."""
    return model if device == device_of(model) else copied(model).to(device)
