"""What the steps of one call hand on: the request after every refusal, and how all was before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from expunge.certificate.facts import Evidence
from expunge.data.rows import Rows
from expunge.judging.copies import Copies, Copy
from expunge.judging.outputs import Outputs
from expunge.judging.split import Split
from expunge.methods.base import Before, Method
from expunge.methods.run import Means
from expunge.network.heads import Head
from expunge.network.passes import logits_of
from expunge.network.state import Layout
from expunge.patches.regions import RegionPatched
from expunge.records import Need, Standing
from expunge.results.forgotten import Forgotten
from expunge.results.read import Reading
from expunge.results.unlearned import Unlearned
from expunge.statistics.features import FeatureStatistics
from expunge.task import ForgetTask

__all__ = ["Already", "Aside", "Found", "Look", "Past", "Request"]


Already = Literal["error", "skip"]
"""What records of a request are that an earlier one has forgotten: a mistake, or passed over."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Past:
    """What earlier requests left behind; nothing at the first one.

    `split_seed` is that of a sequence which began with a run of record version 1, else None.
    `class_names` are the names that its class numbers stand for, where labels were names.
    """

    split_seed: int | None = None
    forgotten: tuple[Forgotten, ...] = ()
    statistics: FeatureStatistics | None = None
    head: str | None = None
    evidence: Evidence | None = None
    predecessor: str | None = None
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None

    @staticmethod
    def of(earlier: Unlearned | None) -> Past:
        """What a run left behind; its outcome is told where it was not accepted."""
        if earlier is None:
            return Past()
        found = earlier.outcome
        poor = f"the run this one starts from ended {found.outcome.value!r}: {found.reason}"
        return Past(
            split_seed=earlier.split_seed,
            forgotten=earlier.forgotten,
            statistics=earlier.statistics,
            head=None if earlier.head is None else earlier.head.name,
            evidence=earlier.evidence,
            predecessor=earlier.certificate,
            notes=() if found.outcome.accepted else (poor,),
            class_names=earlier.class_names,
        )

    def serving(self, task: ForgetTask, method: Method) -> ForgetTask:
        """The request with the statistics of the earlier run, where the method needs some."""
        if task.statistics is not None or "statistics" not in method.needs_for(task.scope):
            return task
        return task.having(dataclasses.replace(task.given, statistics=self.statistics))


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the model has shown: its final linear layer, and how many classes it has."""

    head: Head | None
    classes: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One call after every refusal: `task` is without what was forgotten before.

    `asked` is the request as its caller gave it; `classes` counts the model's outputs.
    """

    model: nn.Module
    method: Method
    asked: ForgetTask
    task: ForgetTask
    means: Means
    past: Past
    found: Found
    split: Split

    @property
    def needs(self) -> frozenset[Need]:
        """What the method must be handed for this request."""
        return self.method.needs_for(self.task.scope)

    @property
    def head(self) -> Head | None:
        """The final linear layer, where there is one."""
        return self.found.head

    @property
    def plain(self) -> bool:
        """Whether the given model carries no patches of earlier requests."""
        patched = isinstance(self.model, RegionPatched)
        return not patched and (self.head is None or self.head.kind == "plain")

    def logits(self, model: nn.Module, rows: Rows) -> Float[Tensor, "rows classes"]:
        """What a model that is on the run's device says on rows."""
        return logits_of(model, rows, batch_size=self.means.batch_size, device=self.means.device)

    @property
    def before(self) -> Before:
        """What the method may know before work starts."""
        return Before(
            head=self.found.head,
            evidence=self.past.evidence,
            predecessor=self.past.predecessor,
            initial=self.means.initial,
            tune=self.split.tune,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aside:
    """What was read beside the stored rows before the edit; see `unlearning.beside`.

    `readings` and `standing` are of all references. `made` are the changed copies of the rows by
    name, `copies` the given model's answers on them, `lost` the names of those that the model does
    not run on. `retained` are its answers on `stays`, some
    rows that stay.
    """

    readings: tuple[Reading, ...] = ()
    standing: tuple[Standing, ...] = ()
    made: Mapping[str, tuple[Copy, ...]] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    copies: Copies = field(default_factory=dict)
    stays: Rows | None = None
    retained: Float[Tensor, "retained classes"] | None = None

    @property
    def independent(self) -> tuple[Reading, ...]:
        """Those of the references that are shown to be independent."""
        pairs = zip(self.readings, self.standing, strict=True)
        return tuple(reading for reading, one in pairs if one.level == "C1")


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """The model as it was given: digest, layout, and logits (this request first, then earlier).

    `features` are those of the forget rows, where the request has statistics to take them out of;
    `beside` is what else was read.
    """

    digest: str
    layout: Layout
    outputs: tuple[Outputs, ...]
    features: Float[Tensor, "forget features"] | None
    beside: Aside = field(default_factory=Aside)
