"""What `audit` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from expunge.reasons import Reason
from expunge.records import (
    Level,
    Limits,
    Measurement,
    NotMeasured,
    Outcome,
    OutcomeReport,
    Standing,
)

__all__ = ["AuditReport"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was measured, on whom, and what could not be; and the latest request judged again.

    `outcome` is the run's. `judged` comes of the same rule on what the audit had at hand, its own
    references among it; None where the original was not.

    `commitment`, `digest_before` and `limits` are those of the run's record: they tie the audit to
    its run. `model_digest` is that of the model as it was measured: the record's `digest_after`,
    unless somebody changed it since. `standing` tells of each reference what shows that it is a
    retrained model, `level` is C1 only where that is shown of all.
    """

    version: int
    method: str
    outcome: OutcomeReport
    judged: OutcomeReport | None
    commitment: str
    digest_before: str
    limits: Limits
    level: Level
    subjects: tuple[str, ...]
    references: tuple[str, ...]
    standing: tuple[Standing, ...]
    counts: Mapping[str, int]
    measurements: tuple[Measurement | NotMeasured, ...]
    model_digest: str
    environment: Mapping[str, str]

    @property
    def contradicts(self) -> bool:
        """Whether the audit rejects what the run accepted, or calls `done` what it rejected."""
        if self.judged is None or self.outcome.why is Reason.CAME_BACK:
            return False
        run, own = self.outcome.outcome, self.judged.outcome
        return run.accepted != own.accepted if own is not Outcome.UNDETERMINED else False

    def value(self, name: str, subject: str, rows: str) -> float | None:
        """The measured value of one figure, or None where it was not measured."""
        for m in self.measurements:
            if (m.name, m.subject, m.rows) == (name, subject, rows):
                return m.value if isinstance(m, Measurement) else None
        return None
