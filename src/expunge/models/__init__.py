"""Small reference nets that public checkpoints, the demo and the examples use."""

from __future__ import annotations

from expunge.models.resnet import CifarResNet, resnet20, resnet32, resnet56
from expunge.models.small import DigitsNet, Mlp

__all__ = ["CifarResNet", "DigitsNet", "Mlp", "resnet20", "resnet32", "resnet56"]
