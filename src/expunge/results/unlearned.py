"""What `unlearn` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from torch import nn

from expunge.certificate.facts import Evidence
from expunge.network.heads import Head
from expunge.records import (
    OutcomeReport,
    RunRecord,
)
from expunge.results.forgotten import Forgotten
from expunge.results.read import Read
from expunge.statistics.features import FeatureStatistics

__all__ = ["Unlearned", "module_of"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unlearned:
    """What `unlearn` returns: the edited model, the record, and statistics where they were kept.

    `original` is the model that was given (not a copy). `forgotten` lists every request so far,
    the latest last; `refused` says by id for which records of the latest one nothing was done, and
    why: these are not forgotten. `twins` has, by the id of a record that was served, the ids of the
    rows that stay and have its content. `split_seed` is None where the holdout is split by content,
    and the seed of the split in a sequence that began with a run of record version 1.
    `history_known` is False for a run loaded without its private part: it cannot serve further.
    `evidence` is what a certificate is written from, where the method proves something;
    `certificate` the digest of the one saved with the run, where it was loaded from a folder.
    `class_names` are what the class numbers stand for, where the labels of the data were names.
    `read` holds the logits that the door has read, in memory only, so that no row passes through
    the same weights twice.
    """

    model: nn.Module
    record: RunRecord
    statistics: FeatureStatistics | None
    forgotten: tuple[Forgotten, ...]
    split_seed: int | None
    original: nn.Module | None = None
    head: Head | None = None
    history_known: bool = True
    evidence: Evidence | None = None
    certificate: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    read: Read | None = None

    @property
    def outcome(self) -> OutcomeReport:
        """The outcome and its reason."""
        return self.record.outcome


def module_of(model: nn.Module | Unlearned) -> nn.Module:
    """The module itself, of a run or as it was given."""
    return model.model if isinstance(model, Unlearned) else model
