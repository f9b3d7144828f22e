"""An audit judges again: the same rule as the run's, on the same rows, with its own references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from expunge.auditing.reading import Areas, Known, Logits
from expunge.data.copies import Views
from expunge.judging.absent import judge_absent
from expunge.judging.copies import Copies, Copy, answers, copies_of, sights
from expunge.judging.outputs import Beside, Judged, Outputs
from expunge.judging.unseen import judge_unseen
from expunge.network.placed import placed
from expunge.reasons import Reason
from expunge.records import Outcome, OutcomeReport, Standing
from expunge.results.unlearned import Unlearned
from expunge.task import ForgetTask

__all__ = ["Said", "judged_again"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """What every model of an audit says, by subject, and the models themselves.

    `known` holds what the door has read of them, and `standing` tells of the references.
    """

    areas: Areas
    models: Mapping[str, nn.Module]
    logits: Mapping[str, Logits]
    known: Mapping[str, Known]
    standing: tuple[Standing, ...]
    views: Views | None
    batch_size: int
    device: torch.device


def judged_again(result: Unlearned, task: ForgetTask, said: Said) -> OutcomeReport | None:
    """The outcome of the latest request by what the audit has at hand; None without the original.

    Earlier requests, and whether stored weights and module agree, are the run's own to judge.
    """
    if "before" not in said.logits or not result.forgotten:
        return None
    served = _served(result, task)
    independent = [one.reference for one in said.standing if one.level == "C1"]
    judge = said.areas.rows.get("judge")
    case = Judged(
        before=_outputs(said.logits["before"], served),
        after=_outputs(said.logits["after"], served),
        labels=task.forget.labels[served],
        judge_labels=None if judge is None else judge.labels,
        gone=task.classes.union(*(request.classes for request in result.forgotten)),
        limits=result.record.limits,
        references=tuple(_outputs(said.logits[name], served) for name in independent),
        beside=_beside(result, task, said, served, independent),
    )
    if case.after.undefined:
        return OutcomeReport.of(Outcome.WRECKED, Reason.NOT_FINITE)
    return judge_absent(case) if task.aim == "absent" else judge_unseen(case)


def _served(result: Unlearned, task: ForgetTask) -> Int[Tensor, " served"]:
    """Which forget rows the run did something for."""
    ids = frozenset(result.forgotten[-1].ids)
    return torch.tensor([n for n, text in enumerate(task.forget.ids) if text in ids]).long()


def _outputs(logits: Logits, served: Int[Tensor, " served"]) -> Outputs:
    return Outputs(forget=logits["forget"][served], judge=logits.get("judge"))


def _beside(
    result: Unlearned,
    task: ForgetTask,
    said: Said,
    served: Int[Tensor, " served"],
    independent: list[str],
) -> Beside:
    judge = said.areas.rows.get("judge")
    if task.scope != "records" or judge is None:
        return Beside()
    made = copies_of(Copy(task.forget, judge), said.views)

    def on(name: str) -> Copies:
        if said.known[name].copies.keys() == made.keys():
            return said.known[name].copies
        model = placed(said.models[name], said.device)
        return answers(model, made, batch_size=said.batch_size, device=said.device)

    def part(outputs: Outputs) -> Outputs:
        return Outputs(forget=outputs.forget[served], judge=outputs.judge)

    others = [on(name) for name in independent]
    retained, labels = _retained(said)
    return Beside(
        copies=sights(on("before"), on("after"), others, part),
        retained=retained,
        retained_labels=labels,
        reach=result.record.reach,
        trained_anew=result.record.trained_anew,
    )


def _retained(said: Said) -> tuple[Tensor | None, Tensor | None]:
    """What the original says on the rows that stay which the door looks at."""
    few = said.areas.few
    if few is None:
        return None, None
    return said.logits["before"]["retained"][few], said.areas.rows["retained"].labels[few]
