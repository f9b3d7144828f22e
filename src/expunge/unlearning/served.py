"""What was served of a request: the records that the method did something for, and the others.

A record that the method refused is neither forgotten nor trained on as one that stays in the same
run. It is left out of what is judged and remembered, so that it can be asked for again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Int
from torch import Tensor

from expunge.certificate.facts import Evidence
from expunge.errors import ContractError, MethodError
from expunge.judging.outputs import Outputs
from expunge.reasons import Reason
from expunge.records import CertificateState, Outcome, OutcomeReport
from expunge.unlearning.compared import Twins, many, twins_of
from expunge.unlearning.request import Request

if TYPE_CHECKING:
    from expunge.unlearning.work import Work

__all__ = ["Served", "served_by"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """The request without refused records, and at which `places` of the forget rows it stands.

    `whole` is the request with them, and `refused` says by position among its forget rows why
    nothing was done. `twins` are those of the records served, None where none were looked for.
    """

    request: Request
    whole: Request
    places: Int[Tensor, " served"]
    refused: Mapping[int, str]
    twins: Twins | None

    def part(self, outputs: Outputs) -> Outputs:
        """The logits of the whole request, on the records that were served."""
        return dataclasses.replace(outputs, forget=outputs.forget[self.places])

    def beside_twins(self, report: OutcomeReport) -> OutcomeReport:
        """The report, undetermined at best where many records stay in the data as another row."""
        task, count = self.request.task, len(self.places)
        if task.aim != "unseen" or report.outcome is not Outcome.DONE:
            return report
        if not many(self.twins, count):
            return report
        facts = {"count": len(self.twins or ()), "records": count, "measured": report.reason}
        return OutcomeReport.of(Outcome.UNDETERMINED, Reason.TWINS, **facts).given(report.figures)

    def said(self, report: OutcomeReport) -> OutcomeReport:
        """The report with the count: nothing is done where a record was refused."""
        if not self.refused or report.outcome not in (Outcome.DONE, Outcome.UNDETERMINED):
            return report
        if report.outcome is Outcome.UNDETERMINED:
            return dataclasses.replace(report, reason=f"{report.reason}; {self._count()}")
        return dataclasses.replace(
            report,
            outcome=Outcome.INCOMPLETE,
            why=Reason.SOME_REFUSED,
            reason=Reason.SOME_REFUSED.filled(count=self._count(), served=report.reason),
        )

    def certified(
        self, report: OutcomeReport, evidence: Evidence | None
    ) -> tuple[CertificateState, int]:
        """Whether the certificate speaks of all that was asked, and of how many records."""
        if evidence is None or not report.outcome.accepted:
            return "none", 0
        if self.request.task.scope == "classes":
            return "complete", len(self.places)
        proven = {record.id for record in evidence.records}
        count = sum(text in proven for text in self.request.task.forget.ids)
        if not count:
            return "none", 0
        every = count == len(self.places) + len(self.refused)
        return ("complete" if every else "partial"), count

    def _count(self) -> str:
        """How many were served and refused: "55 of 60 served, 5 refused: identical to ..."."""
        reasons = Counter(self.refused.values())
        why = (
            next(iter(reasons))
            if len(reasons) == 1
            else ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
        )
        served, left = len(self.places), len(self.refused)
        return f"{served:,} of {served + left:,} served, {left:,} refused: {why}"


def served_by(request: Request, work: Work) -> Served:
    """What the method served; raises MethodError where it refused every record."""
    refused, count = dict(sorted(work.run.record.refused.items())), len(request.task.forget)
    places = torch.tensor([i for i in range(count) if i not in refused], dtype=torch.int64)
    if not refused:
        twins = twins_of(request.task, request.method)
        return Served(request=request, whole=request, places=places, refused={}, twins=twins)
    name = request.method.info.name
    if not set(refused) <= set(range(count)) or request.task.scope == "classes":
        raise ContractError(
            f"Expected method {name!r} to refuse records by their position in `task.forget`, from "
            f"0 to {count - 1} in a request for records, got {next(reversed(refused))}. This is a "
            "bug in the method."
        )
    if not len(places):
        raise MethodError(
            f"Expected method {name!r} to serve some record, got all {count} refused "
            f"({', '.join(sorted(set(refused.values())))}). Use retrain."
        )
    own = _without(request, list(refused))
    twins = twins_of(own.task, own.method)
    return Served(request=own, whole=request, places=places, refused=refused, twins=twins)


def _without(request: Request, refused: list[int]) -> Request:
    """The request without these forget rows: they are among the rows that stay neither."""
    task = request.task
    forget = torch.arange(len(task.rows)) if task.chosen is None else task.chosen.nonzero()[:, 0]
    stays = torch.ones(len(task.rows), dtype=torch.bool)
    stays[forget[refused]] = False
    own = dataclasses.replace(
        task,
        rows=task.rows.select(stays.nonzero().flatten()),
        chosen=None if task.chosen is None else task.chosen[stays],
    )
    return dataclasses.replace(request, task=own)
