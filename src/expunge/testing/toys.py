"""Toy tasks for the contract checks: small, deterministic, trained in about a second.

Three classifiers and the data they were trained on: `mlp` (a tensor in, logits out), `cnn`
(BatchNorm and Dropout) and `mapping` (dict rows in, an object with `.logits` out). Every value is
fixed by a seed of its own; the caller's random state is left alone.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, TypedDict, Unpack, final

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.runtime.randomness import isolated
from expunge.statistics.features import FeatureStatistics
from expunge.task import ForgetTask, forget_classes, forget_indices
from expunge.training import Recipe, Training

__all__ = ["TOYS", "Toy", "ToyCnn", "ToyData", "ToyMapping", "ToyMlp", "ToyName", "toy"]

ToyName = Literal["mlp", "cnn", "mapping"]

_CLASSES = 5
_TRAIN, _HOLDOUT = 32, 64
_CPU = torch.device("cpu")


class Parts(TypedDict, total=False):
    """What a request may be given in place of the toy's own; None means: not given."""

    train: Any
    holdout: Any
    training: Any
    statistics: FeatureStatistics | None
    ids: Sequence[Any] | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class ToyData(Dataset[Any]):
    """Rows held in memory and read one by one; `targets` gives all labels without a read.

    Items are `(x, y)`, or dicts of named tensors and `label` where `inputs` has several names.
    `before_read` is called with the row number first: to count reads, or to raise.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor
    before_read: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> Any:
        if self.before_read is not None:
            self.before_read(position)
        label = int(self.targets[position])
        if set(self.inputs) == {"x"}:
            return self.inputs["x"][position], label
        return {name: value[position] for name, value in self.inputs.items()} | {"label": label}

    def watched(self, before_read: Callable[[int], None]) -> Rows:
        """The same rows, with `before_read` called at each read after the first look at them."""
        looked_at: list[bool] = []

        def told(position: int) -> None:
            if looked_at:
                before_read(position)

        rows = as_rows(ToyData(self.inputs, self.targets, told))
        looked_at.append(True)
        return rows


@final
class ToyMlp(nn.Module):
    """Two linear layers: a tensor in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 20), nn.ReLU())
        self.head = nn.Linear(20, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of rows."""
        logits: Tensor = self.head(self.body(x))
        return logits


@final
class ToyCnn(nn.Module):
    """A convolution with BatchNorm and Dropout: images in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(8 * 4, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        out = self.pool(torch.relu(self.norm(self.conv(x))))
        logits: Tensor = self.fc(self.drop(out.flatten(1)))
        return logits


@final
class ToyMapping(nn.Module):
    """Named inputs, and an output with `.logits`, as in the transformers library."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 12)
        self.right = nn.Linear(6, 12)
        self.norm = nn.LayerNorm(24)
        self.classifier = nn.Linear(24, _CLASSES)

    def forward(self, *, left: Tensor, right: Tensor) -> SimpleNamespace:
        """An object whose `.logits` are those of a batch of rows."""
        hidden = torch.cat([self.left(left), self.right(right)], dim=1)
        return SimpleNamespace(logits=self.classifier(torch.relu(self.norm(hidden))))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Toy:
    """One toy: how to make the model, its training and holdout rows, and the trained model."""

    name: ToyName
    factory: Callable[[], nn.Module]
    train: ToyData
    holdout: ToyData
    recipe: Recipe

    def trained(self) -> nn.Module:
        """A new trained model in eval mode."""
        return copy.deepcopy(_trained(self.name))

    def untidy(self) -> nn.Module:
        """A trained model as users have them: mixed train and eval modes, a frozen layer."""
        model = self.trained()
        for position, module in enumerate(model.modules()):
            module.training = position % 2 == 0
        next(model.parameters()).requires_grad_(False)
        return model

    def training(self) -> Training:
        """How the model was trained."""
        return Training(self.factory, self.recipe)

    def watched(self, before_read: Callable[[int], None]) -> Toy:
        """The same toy, with `before_read` called at each read of a training row."""
        watched: Any = self.train.watched(before_read)
        return dataclasses.replace(self, train=watched)

    def absent(self, *classes: int, **parts: Unpack[Parts]) -> ForgetTask:
        """Ask for whole classes; what is not given is the toy's own."""
        train, given = self._given(parts)
        return forget_classes(train, classes, **given)

    def unseen(self, *indices: int, **parts: Unpack[Parts]) -> ForgetTask:
        """Ask for records; what is not given is the toy's own."""
        train, given = self._given(parts)
        return forget_indices(train, indices, **given)

    def _given(self, parts: Parts) -> tuple[Any, dict[str, Any]]:
        own = {"train": self.train, "holdout": self.holdout, "training": self.training()}
        given: dict[str, Any] = own | parts
        return given.pop("train"), given


def _blobs(shape: tuple[int, ...], per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    centres = torch.randn(_CLASSES, *shape, generator=torch.Generator().manual_seed(17))
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(_CLASSES * per_class) % _CLASSES
    return centres[labels] + 0.5 * torch.randn(len(labels), *shape, generator=noise), labels


def _data(name: ToyName, per_class: int, seed: int) -> ToyData:
    shape = (1, 6, 6) if name == "cnn" else (12,)
    x, labels = _blobs(shape, per_class, seed)
    if name == "mapping":
        return ToyData({"left": x[:, :6], "right": x[:, 6:]}, labels)
    return ToyData({"x": x}, labels)


_FACTORIES: dict[ToyName, Callable[[], nn.Module]] = {
    "mlp": ToyMlp,
    "cnn": ToyCnn,
    "mapping": ToyMapping,
}
TOYS: tuple[ToyName, ...] = ("mlp", "cnn", "mapping")


@cache
def toy(name: ToyName) -> Toy:
    """The toy of that name, the same on every call."""
    return Toy(
        name=name,
        factory=_FACTORIES[name],
        train=_data(name, _TRAIN, seed=1),
        holdout=_data(name, _HOLDOUT, seed=2),
        recipe=Recipe(epochs=12, batch_size=32, lr=0.1, weight_decay=1e-3),
    )


@cache
def _trained(name: ToyName) -> nn.Module:
    made = toy(name)
    with isolated(0, _CPU) as generator:
        return made.recipe(made.factory(), made.train, generator=generator, device=_CPU)
