"""Each row through each model once: the logits before and after, and the judgement on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.errors import ModelError
from expunge.judging.absent import judge_absent
from expunge.judging.copies import Copies
from expunge.judging.outputs import Judged, Outputs
from expunge.judging.unseen import judge_unseen
from expunge.network.passes import feature_batches
from expunge.network.state import digest_of, layout_of, state_of
from expunge.reasons import Reason
from expunge.records import Outcome, OutcomeReport
from expunge.unlearning.beside import after_copies, beside_of, seen_beside, told_of
from expunge.unlearning.history import judge_again
from expunge.unlearning.request import Look, Request
from expunge.unlearning.served import Served
from expunge.unlearning.stored import Stored, greatest, in_memory, moved

__all__ = ["Verdict", "judged", "looked_at"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """The outcome, what it was judged on, changed copies among it, and sentences for the record."""

    outcome: OutcomeReport
    before: Outputs
    after: Outputs | None
    copies: Copies = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def looked_at(request: Request, copied: nn.Module) -> Look:
    """Read the given model's logits with its private copy; raises ModelError for NaN and +∞."""
    logits, features = _forget_rows(request, copied)
    found = _outputs(request, copied, logits)
    if any(outputs.undefined for outputs in found):
        raise ModelError(
            "Expected logits that are numbers, got NaN or +infinity on some rows. Check the "
            "model's normalisation and the data."
        )
    return Look(
        digest=digest_of(state_of(request.model)),
        layout=layout_of(request.model),
        outputs=found,
        features=features,
        beside=seen_beside(request, copied, found[0]),
    )


def judged(request: Request, look: Look, stored: Stored, served: Served) -> Verdict:
    """Judge the stored model on the records served and the judge rows, and earlier requests."""
    edited, first = stored.edited, look.outputs[0]
    if stored.unfit is None and digest_of(state_of(edited.model)) == look.digest:
        outcome = OutcomeReport.of(Outcome.NO_OP, Reason.SAME_WEIGHTS)
        notes = in_memory(request, stored, first.forget)
        return Verdict(outcome=outcome, before=first, after=first, notes=notes)
    edited.model.to(request.means.device)
    after = _outputs(request, edited.model, request.logits(edited.model, request.task.forget))
    said = (*in_memory(request, stored, after[0].forget), *told_of(look.beside))
    if any(outputs.undefined for outputs in after):
        outcome = OutcomeReport.of(Outcome.WRECKED, Reason.NOT_FINITE)
        return _back(stored, Verdict(outcome=outcome, before=first, after=after[0], notes=said))
    if not moved(first.forget, after[0].forget, greatest(first.forget)):
        outcome = OutcomeReport.of(Outcome.NO_OP, Reason.SAME_ANSWERS)
        return _back(stored, Verdict(outcome=outcome, before=first, after=after[0], notes=said))
    judge = request.split.judge
    copies = after_copies(request, look.beside, edited.model)
    case = Judged(
        before=served.part(first),
        after=served.part(after[0]),
        labels=served.request.task.forget.labels,
        judge_labels=None if first.judge is None or judge is None else judge.labels,
        gone=request.task.gone,
        limits=request.means.limits,
        references=tuple(served.part(one.outputs) for one in look.beside.independent),
        beside=beside_of(request, look.beside, copies, served),
    )
    report = judge_absent(case) if request.task.aim == "absent" else judge_unseen(case)
    report, notes = judge_again(
        served.request, look.outputs[1:], after[1:], report, edited.evidence
    )
    if stored.unfit is not None and report.outcome is Outcome.DONE:
        facts = {"unfit": stored.unfit, "measured": report.reason}
        report = OutcomeReport.of(Outcome.UNDETERMINED, Reason.IN_MEMORY, **facts).given(
            report.figures
        )
    outcome = served.said(served.beside_twins(report))
    every = (*notes, *said)
    verdict = Verdict(outcome=outcome, before=first, after=after[0], copies=copies, notes=every)
    return _back(stored, verdict)


def _back(stored: Stored, verdict: Verdict) -> Verdict:
    """The verdict, with the edited model where it was before it was read."""
    stored.edited.model.to(stored.edited.home)
    return verdict


def _forget_rows(
    request: Request, copied: nn.Module
) -> tuple[Float[Tensor, "forget classes"], Float[Tensor, "forget features"] | None]:
    """Logits of the forget rows and, for statistics to be carried on, their features; one pass."""
    statistics, forget = request.task.statistics, request.task.forget
    if request.head is None or statistics is None or statistics.members is None:
        return request.logits(copied, forget), None
    size, device = request.means.batch_size, request.means.device
    parts = [
        (features.cpu(), logits.float().cpu())
        for features, logits, _ in feature_batches(
            copied, request.head, forget, batch_size=size, device=device
        )
    ]
    return torch.cat([z for _, z in parts]), torch.cat([h for h, _ in parts])


def _outputs(
    request: Request, model: nn.Module, forget: Float[Tensor, "forget classes"]
) -> tuple[Outputs, ...]:
    """Logits on judge, and on the records of this request and of every earlier one at hand."""
    rows = request.split.judge
    judge = None if rows is None or not len(rows) else request.logits(model, rows)
    earlier = (r.rows for r in request.past.forgotten if r.rows is not None)
    every = (forget, *(request.logits(model, rows) for rows in earlier))
    return tuple(Outputs(forget=logits, judge=judge) for logits in every)
