"""What was forgotten before: it stays out of training and holdout data, and is judged again."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from expunge.certificate.facts import Evidence
from expunge.data.digests import content_digests
from expunge.data.rows import Rows
from expunge.errors import (
    TaskError,
)
from expunge.judging.absent import absent_again
from expunge.judging.outputs import Outputs
from expunge.judging.split import tune_and_judge
from expunge.judging.unseen import unseen_again
from expunge.records import (
    Outcome,
    OutcomeReport,
)
from expunge.results.forgotten import found_again, never_forgotten
from expunge.results.unlearned import Unlearned
from expunge.unlearning.joined import joined
from expunge.unlearning.request import Door

__all__ = ["exclude_forgotten", "judge_again"]


def exclude_forgotten(door: Door, earlier: Unlearned | None) -> None:
    """Drop what was forgotten before from the retain set, clean and split the holdout."""
    task = door.task
    if task.retain is not None:
        everything = joined(task.forget, task.retain)
        door.forgotten = tuple(found_again(request, everything) for request in door.forgotten)
    lost = sum(request.rows is None for request in door.forgotten)
    if lost:
        door.notes.append(f"{lost} earlier requests were not checked again: no rows at hand")
    past_ids = {i for request in door.forgotten for i in request.ids}
    past_classes = frozenset().union(*(r.classes for r in door.forgotten))
    again = sorted(past_classes & task.classes)
    if again:
        raise TaskError(
            f"Expected classes not forgotten before, got class {again[0]} again. It stays "
            "forgotten; leave it out of this request."
        )
    repeated = next((i for i in task.forget.ids if i in past_ids), None)
    if repeated is not None and task.scope == "classes":
        # The class goes, and some of its records went before it: those are not removed twice.
        fresh = [n for n, i in enumerate(task.forget.ids) if i not in past_ids]
        if fresh:
            door.notes.append(
                f"{len(task.forget) - len(fresh)} records of the request were forgotten before"
            )
            task = dataclasses.replace(task, forget=task.forget.select(torch.tensor(fresh)))
            repeated = None
    if repeated is not None:
        raise TaskError(
            f"Expected records not forgotten before, got {repeated!r} again. It stays forgotten; "
            "leave it out of this request."
        )
    if not door.gone < frozenset(range(door.classes)) or door.classes - len(door.gone) < 2:
        raise TaskError(
            f"Expected at least two of the model's {door.classes} classes to stay, got a request "
            f"that leaves {door.classes - len(door.gone)}."
        )
    retain = _staying(door)
    if task.holdout is not None:
        past_rows = [r.rows for r in door.forgotten if r.rows is not None]
        door.tune, door.judge, door.dropped = tune_and_judge(
            task.holdout, [task.forget, *past_rows], door.split_seed
        )
        if door.dropped:
            door.notes.append(
                f"{door.dropped} holdout rows are also in a forget set and were left out"
            )
    statistics = task.statistics
    if statistics is None and earlier is not None:
        statistics = earlier.statistics
        if (
            statistics is not None
            and statistics.covers(task.forget.ids) is False
            and "statistics" not in door.needs
        ):
            door.notes.append("the feature statistics are void: they do not cover the forget rows")
            statistics = None
    if statistics is not None and door.head is not None:
        statistics.check(door.original, door.head)
        if statistics.members is not None and any(
            statistics.member(i) in statistics.members for i in past_ids
        ):
            raise TaskError(
                "Expected statistics without the records forgotten earlier, got some that still "
                "hold them. Leave `statistics` out (a run carries its own), or make them again "
                "from the run with `expunge statistics`."
            )
        if statistics.covers(task.forget.ids) is False:
            raise TaskError(
                "Expected statistics that cover every forget record, got some that do not. Check "
                "the ids against those the statistics were made from."
            )
    door.task = dataclasses.replace(task, retain=retain, statistics=statistics, gone=door.gone)


def _staying(door: Door) -> Rows | None:
    """The retain rows that no earlier request took away."""
    if door.task.retain is None:
        return None
    retain = never_forgotten(door.task.retain, door.forgotten)
    summed = "statistics" in door.needs and door.task.statistics is None
    if not len(retain) and ("retain" in door.needs or summed):
        raise TaskError(
            "Expected some rows of `train` to stay, got none: this request and the earlier ones "
            "take all of them. Delete the model instead."
        )
    return retain


def judge_again(
    door: Door,
    before: list[Outputs],
    after: list[Outputs],
    judge_labels: Tensor | None,
    report: OutcomeReport,
    evidence: Evidence | None,
) -> OutcomeReport:
    """The report, or `ineffective` where records of an earlier request came back."""
    proven = set() if evidence is None else {record.id for record in evidence.records}
    figures, back, unjudged = dict(report.figures), list[str](), dict[str, list[str]]()
    past = [(n, r, r.rows) for n, r in enumerate(door.forgotten, 1) if r.rows is not None]
    records = sum(request.aim == "unseen" for _, request, _ in past)
    current = set(content_digests(door.task.forget)) if records else set()
    for (number, request, rows), old, new in zip(past, before, after, strict=True):
        labels, limits, judge = rows.labels, door.limits, absent_again
        if request.aim == "unseen":
            # an input that this request forgets too is judged as part of it
            own = torch.tensor([d not in current for d in content_digests(rows)])
            old, new = (dataclasses.replace(z, forget=z.forget[own]) for z in (old, new))
            # each request is one more chance of a false alarm
            once = 1 - (1 - limits.confidence) / records
            limits = dataclasses.replace(limits, confidence=once)
            labels, judge = labels[own], unseen_again
        again = judge(old, new, labels, judge_labels, door.gone, limits)
        for name, value in again.figures.items():
            figures[name] = max(figures.get(name, value), value)
        if again.outcome is Outcome.INEFFECTIVE:
            back.append(f"request {number}, {again.reason}")
        if again.outcome is Outcome.UNDETERMINED and not proven.issuperset(request.ids):
            unjudged.setdefault(again.reason, []).append(str(number))
    for reason, numbers in unjudged.items():
        door.notes.append(
            f"records of earlier requests were not judged again: {reason} (request "
            f"{', '.join(numbers)})"
        )
    if back and report.outcome is not Outcome.WRECKED:
        report = OutcomeReport(
            outcome=Outcome.INEFFECTIVE,
            reason=f"records of an earlier request came back: {'; '.join(back)}",
        )
    return dataclasses.replace(report, figures=figures)
