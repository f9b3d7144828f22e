"""What the door hands to a method: device, randomness, batching and the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from expunge.certificate.facts import Evidence
from expunge.data.rows import Inputs, Rows
from expunge.errors import UnsupportedError
from expunge.methods.base import Before, Progress
from expunge.network.calls import to_device
from expunge.network.heads import Head
from expunge.network.passes import feature_batches, logits_of
from expunge.records import Limits, Structure
from expunge.statistics.collect import collect_sums
from expunge.statistics.sums import Sums, augment
from expunge.task import ForgetTask

__all__ = ["Log", "Means", "Run"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """What one call may use, as its caller said: never more than these travel through the door.

    `head` is the name of the final linear layer where it cannot be found, `initial` the weights
    before training where they were kept.
    """

    seed: int
    device: torch.device
    head: str | None = None
    initial: Mapping[str, Tensor] | None = None
    limits: Limits = field(default_factory=Limits)
    batch_size: int = 256
    progress: Progress | None = None


@final
@dataclass(slots=True, kw_only=True)
class Log:
    """What a method says and does while it runs; the door writes the record from it.

    `structure` is said by methods that choose it per request, `evidence` by those that prove
    something; `forget_sums` are sums over the forget rows that were taken on the way. `refused`
    says for the positions of records that nothing was done for why.
    """

    notes: list[str] = field(default_factory=list)
    scalars: dict[str, list[float]] = field(default_factory=dict)
    samples_touched: int = 0
    gradient_steps: int = 0
    structure: Structure | None = None
    evidence: Evidence | None = None
    forget_sums: Sums | None = None
    refused: dict[int, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What the door hands to a method: means, randomness, batching and the log.

    Made by `unlearn` alone. `kept` are the classes that stay after this and all earlier requests.
    `forget_logits` (n_f, K) are those of the model as it was given. `before` has the head and the
    evidence of the requests so far; a method that proves something hands in its own with `prove`,
    else it is void afterwards.
    """

    means: Means
    generator: torch.Generator
    classes: int
    kept: tuple[int, ...]
    before: Before
    forget_logits: Float[Tensor, "forget classes"] | None = None
    record: Log = field(default_factory=Log)

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.means.device

    @property
    def batch_size(self) -> int:
        """Rows in a forward pass."""
        return self.means.batch_size

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.means.seed

    @property
    def initial(self) -> Mapping[str, Tensor] | None:
        """The weights before training, where they were kept."""
        return self.means.initial

    @property
    def head(self) -> Head | None:
        """The final linear layer, where the door has found one."""
        return self.before.head

    def log(self, name: str, value: float) -> None:
        """Append a scalar to the record's log."""
        self.record.scalars.setdefault(name, []).append(float(value))

    def note(self, sentence: str) -> None:
        """Add a sentence that every reader of the record must see."""
        self.record.notes.append(sentence)

    def report(self, what: str, done: int, total: int) -> None:
        """Tell the progress bar, if there is one."""
        if self.means.progress is not None:
            self.means.progress(what, done, total)

    def touched(self, rows: int) -> None:
        """Count rows that the method reads by itself."""
        self.record.samples_touched += rows

    def stepped(self, steps: int = 1) -> None:
        """Count steps of descent."""
        self.record.gradient_steps += steps

    def shape(self, structure: Structure) -> None:
        """Say how the edited module relates to the given one, where that depends on the request."""
        self.record.structure = structure

    def refuse_records(self, positions: Iterable[int], reason: str) -> None:
        """Say for which records of `task.forget` nothing was done, and why.

        They are counted in the outcome, are not forgotten, and can be asked for again.
        """
        self.record.refused.update(dict.fromkeys(positions, reason))

    def summed(self, sums: Sums | None) -> None:
        """Hand in sums over the forget rows that were taken on the way."""
        self.record.forget_sums = sums

    def prove(self, evidence: Evidence | None) -> None:
        """Hand in what a certificate of all requests so far is written from."""
        self.record.evidence = evidence

    def batches(self, rows: Rows, *, size: int | None = None) -> Iterator[tuple[Inputs, Tensor]]:
        """Batches in stored order, on the run's device."""
        for inputs, labels in rows.batches(size or self.batch_size, torch.arange(len(rows))):
            self.touched(len(labels))
            yield to_device(inputs, self.device), labels.to(self.device)

    def logits(self, model: torch.nn.Module, rows: Rows) -> Float[Tensor, "rows classes"]:
        """Logits of every row in eval mode, float32 on the CPU."""
        self.touched(len(rows))
        return logits_of(model, rows, batch_size=self.batch_size, device=self.device)

    def features(
        self, model: torch.nn.Module, rows: Rows, mean: Float[Tensor, " features"]
    ) -> Float[Tensor, "rows features+1"]:
        """Centred, bias-augmented features h̃ of every row, float64 on the CPU."""
        self.touched(len(rows))
        parts = [
            augment(features, mean)
            for features, _, _ in feature_batches(
                model, self.needed_head, rows, batch_size=self.batch_size, device=self.device
            )
        ]
        return torch.cat(parts)

    def sums(
        self, model: torch.nn.Module, task: ForgetTask, mean: Float[Tensor, " features"]
    ) -> Sums:
        """Sums over the forget rows; free where the pass that made the statistics took them."""
        if self.record.forget_sums is None:
            self.touched(len(task.forget))
            found = collect_sums(
                model,
                self.needed_head,
                task.forget,
                mean=mean,
                batch_size=self.batch_size,
                device=self.device,
            )
            self.summed(found)
            return found
        return self.record.forget_sums

    @property
    def needed_head(self) -> Head:
        """The head, for methods that declare the need; the door has found it by then."""
        if self.head is None:
            raise UnsupportedError(
                "Expected a method that uses the head to declare `head` in `info.needs`."
            )
        return self.head

    def logits_before(self) -> Float[Tensor, "forget classes"]:
        """Logits of the forget rows by the model as it was given; the door has read them."""
        assert self.forget_logits is not None, "the door reads them before it makes a run"
        return self.forget_logits
