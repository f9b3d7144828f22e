"""Residual networks for 32×32 images, as in He et al. (2016), section 4.2.

Three stages of 16, 32 and 64 channels with parameter-free shortcuts (option A: stride two and
zero channels), a global average and one linear layer called `linear`. The state dict has the keys
`conv1, bn1, layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}, linear`, which public CIFAR checkpoints use.

Reference: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016, arXiv 1512.03385.
"""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CifarResNet", "resnet20", "resnet32", "resnet56"]


@final
class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.extra = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x
        if self.stride != 1 or self.extra:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            half = self.extra // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, half, self.extra - half))
        return F.relu(out + shortcut)


@final
class CifarResNet(nn.Module):
    """ResNet of depth 6·`blocks`+2 for images of shape (batch, 3, 32, 32).

    `widths` are the channels of the three stages; the last is the feature dimension d of the head.
    """

    def __init__(
        self, blocks: int, classes: int, *, widths: tuple[int, int, int] = (16, 32, 64)
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks, 1)
        self.layer2 = _stage(widths[0], widths[1], blocks, 2)
        self.layer3 = _stage(widths[1], widths[2], blocks, 2)
        self.linear = nn.Linear(widths[2], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, 32, 32)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = out.mean(dim=(2, 3))
        logits: Tensor = self.linear(out)
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(in_channels, out_channels, stride)
    rest = [_Block(out_channels, out_channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def resnet20(classes: int = 10) -> CifarResNet:
    """ResNet-20 (0.27 M parameters, d = 64)."""
    return CifarResNet(3, classes)


def resnet32(classes: int = 10) -> CifarResNet:
    """ResNet-32 (0.46 M parameters, d = 64)."""
    return CifarResNet(5, classes)


def resnet56(classes: int = 10) -> CifarResNet:
    """ResNet-56 (0.85 M parameters, d = 64)."""
    return CifarResNet(9, classes)
