"""What every method is: frozen hyper-parameters and one verb, `apply`.

A new method is one file with one final frozen dataclass. It never copies, seeds, checks or
records: the door `unlearn` does, and hands it a `Run` for the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.certificate.evidence import Evidence
from expunge.data.rows import Inputs, Rows
from expunge.errors import UnsupportedError
from expunge.heads import Head, feature_batches, logits_of, to_device
from expunge.records import MethodInfo, Need, Scope, Structure
from expunge.statistics import Sums, augment, collect_sums
from expunge.task import ForgetTask

__all__ = ["Before", "Method", "Progress", "Run"]

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)` while a method works; total 0 means unknown."""


class Method(ABC):
    """An unlearning algorithm: frozen hyper-parameters plus one verb."""

    __slots__ = ()

    info: ClassVar[MethodInfo]

    @property
    def needs(self) -> frozenset[Need]:
        """What this value must be handed: `info.needs` and what its fields ask for beyond."""
        return self.info.needs | self._extra_needs()

    def _extra_needs(self) -> frozenset[Need]:
        return frozenset()

    def needs_for(self, scope: Scope) -> frozenset[Need]:
        """What this value must be handed for a request of this scope; `needs` for most methods."""
        del scope
        return self.needs

    def needs_in_words(self) -> str:
        """`info.needs`, and what a scope asks for beyond, as lists and tables show it."""
        words = ", ".join(sorted(self.info.needs))
        for scope in sorted(self.info.scopes):
            beyond = self.needs_for(scope) - self.info.needs
            if beyond:
                words += f"; for {scope} also {', '.join(sorted(beyond))}"
        return words

    def refuse(self, model: nn.Module, task: ForgetTask, before: Before) -> None:
        """Raise an ExpungeError where this request on this model cannot be served; changes nothing.

        Called by the door after its own checks and by a dry run, before anything is copied. By
        default nothing is refused.
        """
        del model, task, before

    @abstractmethod
    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Return `model`, a private copy, edited so that it forgets `task.forget`.

        Keep every state entry's name, shape, dtype and device (structure `same`). Draw randomness
        only from `run.generator`. Leave no hooks. Raise UnsupportedError before any edit.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What a method may know of the model before work starts: its head and earlier certificates."""

    head: Head | None
    evidence: Evidence | None
    predecessor: str | None


@final
@dataclass(slots=True, kw_only=True)
class Run:
    """What the door hands to a method: device, randomness, batching and the log.

    Made by `unlearn` alone. `kept` are the classes that stay after this and all earlier requests.
    `evidence` is that of the requests so far; a method that proves something replaces it with its
    own, else it is void afterwards; `predecessor` is the digest of the certificate before, where
    one was saved. `structure` is set by methods that choose it per request.
    """

    device: torch.device
    generator: torch.Generator
    batch_size: int
    classes: int
    kept: tuple[int, ...]
    head: Head | None = None
    initial: Mapping[str, Tensor] | None = None
    forget_sums: Sums | None = None
    progress: Progress | None = None
    notes: list[str] = field(default_factory=list)
    scalars: dict[str, list[float]] = field(default_factory=dict)
    samples_touched: int = 0
    gradient_steps: int = 0
    seed: int = 0
    evidence: Evidence | None = None
    predecessor: str | None = None
    structure: Structure | None = None

    def log(self, name: str, value: float) -> None:
        """Append a scalar to the record's log."""
        self.scalars.setdefault(name, []).append(float(value))

    def note(self, sentence: str) -> None:
        """Add a sentence that every reader of the record must see."""
        self.notes.append(sentence)

    def report(self, what: str, done: int, total: int) -> None:
        """Tell the progress bar, if there is one."""
        if self.progress is not None:
            self.progress(what, done, total)

    def batches(self, rows: Rows, *, size: int | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """Batches in stored order, on the run's device."""
        yield from self._moved(rows, torch.arange(len(rows)), size)

    def shuffled(self, rows: Rows, *, size: int | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """Batches in an order drawn from the run's generator, on the run's device."""
        order = torch.randperm(len(rows), generator=self.generator)
        yield from self._moved(rows, order, size)

    def _moved(
        self, rows: Rows, order: Tensor, size: int | None
    ) -> Iterator[tuple[Inputs, Tensor]]:
        for inputs, labels in rows.batches(size or self.batch_size, order):
            self.samples_touched += len(labels)
            yield to_device(inputs, self.device), labels.to(self.device)

    def logits(self, model: nn.Module, rows: Rows) -> Float[Tensor, "rows classes"]:
        """Logits of every row in eval mode, float32 on the CPU."""
        self.samples_touched += len(rows)
        return logits_of(model, rows, batch_size=self.batch_size, device=self.device)

    def features(
        self, model: nn.Module, rows: Rows, mean: Float[Tensor, " features"]
    ) -> Float[Tensor, "rows features+1"]:
        """Centred, bias-augmented features h̃ of every row, float64 on the CPU."""
        self.samples_touched += len(rows)
        parts = [
            augment(features, mean)
            for features, _, _ in feature_batches(
                model, self.needed_head, rows, batch_size=self.batch_size, device=self.device
            )
        ]
        return torch.cat(parts)

    def sums(self, model: nn.Module, task: ForgetTask, mean: Float[Tensor, " features"]) -> Sums:
        """Sums over the forget rows; free where the pass that made the statistics took them."""
        if self.forget_sums is None:
            self.samples_touched += len(task.forget)
            self.forget_sums = collect_sums(
                model,
                self.needed_head,
                task.forget,
                mean=mean,
                batch_size=self.batch_size,
                device=self.device,
            )
        return self.forget_sums

    @property
    def needed_head(self) -> Head:
        """The head, for methods that declare the need; the door has found it by then."""
        if self.head is None:
            raise UnsupportedError(
                "Expected a method that uses the head to declare `head` in `info.needs`."
            )
        return self.head
