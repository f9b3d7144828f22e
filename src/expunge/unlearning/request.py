"""What the steps of one call share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from expunge.certificate.facts import Evidence
from expunge.data.rows import Rows
from expunge.methods.base import Method, Progress
from expunge.network.heads import Head
from expunge.records import (
    Limits,
    Need,
)
from expunge.results.forgotten import Forgotten
from expunge.task import ForgetTask

__all__ = ["Door"]


@final
@dataclass(slots=True)
class Door:
    """Everything the steps of one call share."""

    original: nn.Module
    method: Method
    task: ForgetTask
    seed: int
    split_seed: int
    limits: Limits
    batch_size: int
    device: torch.device
    forgotten: tuple[Forgotten, ...]
    initial: Mapping[str, Tensor] | None
    progress: Progress | None
    head: Head | None = None
    classes: int = 0
    tune: Rows | None = None
    judge: Rows | None = None
    dropped: int = 0
    evidence: Evidence | None = None
    predecessor: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def needs(self) -> frozenset[Need]:
        """What the method must be handed for this request."""
        return self.method.needs_for(self.task.scope)

    @property
    def gone(self) -> frozenset[int]:
        """Classes of this request and all earlier ones."""
        earlier = (request.classes for request in self.forgotten)
        return self.task.classes.union(*earlier)
