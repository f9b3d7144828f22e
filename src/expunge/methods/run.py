"""What the door hands to a method: device, randomness, batching and the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.certificate.facts import Evidence
from expunge.data.rows import Inputs, Rows
from expunge.errors import UnsupportedError
from expunge.methods.base import Progress
from expunge.network.calls import to_device
from expunge.network.heads import Head
from expunge.network.passes import feature_batches, logits_of
from expunge.records import Structure
from expunge.statistics.collect import collect_sums
from expunge.statistics.sums import Sums, augment
from expunge.task import ForgetTask

__all__ = ["Run"]


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
