"""Small nets for the demo, the tests and the benchmarks."""

from __future__ import annotations

from itertools import pairwise
from typing import final

from torch import Tensor, nn

__all__ = ["DigitsNet", "Mlp"]


@final
class DigitsNet(nn.Module):
    """A convolutional net for 8×8 grey images: two convolutions, 64 features, one linear head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 1, 8, 8)."""
        logits: Tensor = self.head(self.body(x))
        return logits


@final
class Mlp(nn.Module):
    """A multi-layer perceptron with ReLU on flattened inputs."""

    def __init__(self, sizes: tuple[int, ...] = (784, 256, 256, 10)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-2], sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = self.head(self.body(x))
        return logits
