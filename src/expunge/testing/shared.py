"""What the checks of a method share: the subject, its requests and runs, and what is compared."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from expunge.errors import ContractError, ModelError, UnsupportedError
from expunge.methods.base import Method
from expunge.network.state import Layout, digest_of, hook_count, layout_of, state_of
from expunge.records import MethodInfo, Need, Scope
from expunge.results.unlearned import Unlearned
from expunge.runtime.randomness import isolated
from expunge.statistics.features import FeatureStatistics
from expunge.task import ForgetTask
from expunge.testing.checking import CPU, require
from expunge.testing.toys import Toy, ToyData, toy
from expunge.unlearning.door import rehearse, unlearn

__all__ = [
    "GONE",
    "NEXT",
    "Snapshot",
    "Subject",
    "content",
    "copies_of",
    "global_state",
]

GONE, NEXT = 3, 1
"""The classes that the toy requests forget, in this order."""

_REFUSALS = (UnsupportedError, ModelError)
"""How a method says that it does not serve a request or a model."""


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked: a method, and the kind of request it is checked with."""

    method: Method
    scope: Scope

    @property
    def info(self) -> MethodInfo:
        """What the method says of itself."""
        return self.method.info

    @property
    def needs(self) -> frozenset[Need]:
        """What the method must be handed for this kind of request."""
        return self.method.needs_for(self.scope)

    def require(self, promise: bool, sentence: str) -> None:
        """Raise ContractError with what was found, where the promise does not hold."""
        require(promise, self.method, sentence)

    def expect(self, kind: type[Exception], words: str, attempt: Callable[[], object]) -> None:
        """Raise ContractError where the attempt is not refused in these words."""
        try:
            attempt()
        except kind as error:
            self.require(words in str(error), f"expected a message with {words!r}, got: {error}")
        else:
            self.require(False, f"expected {kind.__name__} with {words!r}, got no error")

    def request(self, made: Toy, *, statistics: FeatureStatistics | None = None) -> ForgetTask:
        """A request of this kind on a toy."""
        if self.scope == "classes":
            return made.absent(GONE, statistics=statistics)
        return made.unseen(*range(0, 40, 5), statistics=statistics)

    def toy(self) -> Toy:
        """The toy to check on: the net with batch norm, or the plain MLP where that is refused."""
        return toy("cnn") if self.refusal(toy("cnn")) is None else toy("mlp")

    def refusal(self, made: Toy) -> str | None:
        """What is said where the method does not serve a toy, before any edit; None where it does.

        Other errors are no refusal: the checks will meet them.
        """
        try:
            rehearse(made.untidy(), self.method, self.request(made), seed=0)
        except _REFUSALS as error:
            return str(error)
        except Exception:  # noqa: BLE001  somebody else's code may raise anything
            return None
        return None

    def run(
        self,
        made: Toy,
        model: nn.Module | Unlearned | None = None,
        *,
        task: ForgetTask | None = None,
        seed: int = 0,
    ) -> Unlearned:
        """What `tried` returns; raises ContractError where the method refuses."""
        try:
            return self.tried(made, model, task=task, seed=seed)
        except _REFUSALS as error:
            text = f"Method {self.info.name!r}: refuses the toy {made.name!r}: {error}"
            raise ContractError(text) from error

    def tried(
        self,
        made: Toy,
        model: nn.Module | Unlearned | None = None,
        *,
        task: ForgetTask | None = None,
        seed: int = 0,
    ) -> Unlearned:
        """One call of the door; by default with an untidy model and the request of this kind."""
        asked = self.request(made) if task is None else task
        given = made.untidy() if model is None else model
        return unlearn(given, self.method, asked, seed=seed, initial=_initial(made))


def _initial(made: Toy) -> dict[str, Tensor]:
    with isolated(0, CPU):
        return state_of(made.factory())


@final
@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything about a model that must be the same afterwards."""

    digest: str
    layout: Layout
    hooks: int
    gradients: tuple[bytes | None, ...]

    @staticmethod
    def of(model: nn.Module) -> Snapshot:
        """The model as it is now."""
        return Snapshot(
            digest_of(state_of(model)),
            layout_of(model),
            hook_count(model),
            tuple(None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()),
        )


def content(data: ToyData) -> str:
    """A digest of all inputs and labels."""
    return digest_of({**data.inputs, "targets": data.targets})


def global_state() -> tuple[bytes, str, str]:
    """Where the generators of torch, numpy and random are."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state()),
        repr(random.getstate()),
    )


def copies_of(model: nn.Module) -> list[nn.Module]:
    """A list that will hold every deep copy made of `model`."""
    copies: list[nn.Module] = []

    def copier(memo: dict[int, Any]) -> nn.Module:
        del model.__dict__["__deepcopy__"]
        try:
            copies.append(copy.deepcopy(model, memo))
        finally:
            model.__dict__["__deepcopy__"] = copier
        return copies[-1]

    model.__dict__["__deepcopy__"] = copier
    return copies
