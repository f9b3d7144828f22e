"""What was forgotten before: it stays out of training and holdout data, and is judged again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from expunge.certificate.facts import Evidence
from expunge.data.digests import content_digests
from expunge.errors import ContractError, TaskError
from expunge.judging.absent import absent_again
from expunge.judging.again import unseen_again
from expunge.judging.outputs import Judged, Outputs
from expunge.methods.base import Method
from expunge.reasons import Reason
from expunge.records import Outcome, OutcomeReport
from expunge.results.forgotten import Forgotten, found_again, still_there
from expunge.statistics.features import FeatureStatistics
from expunge.task import ForgetTask
from expunge.unlearning.compared import with_digests
from expunge.unlearning.request import Already, Found, Past, Request

__all__ = ["judge_again", "settled", "without_forgotten"]


def without_forgotten(
    task: ForgetTask, past: Past, method: Method, found: Found, already: Already = "error"
) -> tuple[ForgetTask, Past]:
    """The request without rows that earlier requests took away, and these with their records.

    Raises TaskError for classes and records that are forgotten already (records are passed over
    where `already` is "skip" and some are left), and for a request that leaves too little.
    """
    requests = past.forgotten
    if task.chosen is not None:
        requests = tuple(found_again(request, task.rows) for request in requests)
    lost = sum(request.rows is None for request in requests)
    notes = past.notes
    if lost:
        notes += (f"{lost} earlier requests were not checked again: no rows at hand",)
    _refuse_repeated_classes(task, requests)
    known = {i for request in requests for i in request.ids}
    fresh = torch.tensor([i not in known for i in task.rows.ids], dtype=torch.bool)
    own = torch.ones_like(fresh) if task.chosen is None else task.chosen
    repeated = int((own & ~fresh).sum())
    refused = task.scope == "records" and already == "error"
    if repeated and (refused or not bool((own & fresh).any())):
        again = next(i for i in task.forget.ids if i in known)
        raise TaskError(
            f"Expected records not forgotten before, got {again!r} again. It stays forgotten; "
            "leave it out of this request"
            + ('; or say `already="skip"` ([forget] in a job).' if refused else ".")
        )
    if repeated and task.scope == "records":
        notes += (f"{repeated} records of the request were forgotten before and were passed over",)
    elif repeated:
        # The class goes, and some of its records went before it: those are not removed twice.
        notes += (f"{repeated} records of the request were forgotten before",)
    gone = task.classes.union(*(request.classes for request in requests))
    _refuse_too_much(gone, found.classes)
    stays = (own & fresh) | (~own & still_there(task.rows, requests))
    places = stays.nonzero().flatten()
    kept = dataclasses.replace(
        task,
        rows=task.rows.select(places),
        chosen=None if task.chosen is None else task.chosen[places],
        gone=gone,
    )
    taken, joined = _widened(with_digests(kept, method), method)
    if joined:
        notes += (f"{joined} rows with the same input as a record of the request joined it",)
    _refuse_nothing_left(taken, method)
    return taken, dataclasses.replace(past, forgotten=requests, notes=notes)


def _widened(task: ForgetTask, method: Method) -> tuple[ForgetTask, int]:
    """The request as the method takes it, and how many rows that stay joined it."""
    taken = method.widened(task)
    if taken is task:
        return task, 0
    if task.chosen is None or taken.chosen is None or bool((task.chosen & ~taken.chosen).any()):
        raise ContractError(
            f"Expected `widened` of method {method.info.name!r} to let rows that stay join the "
            "request, and none leave it. This is a bug in the method."
        )
    return dataclasses.replace(task, chosen=taken.chosen), len(taken.forget) - len(task.forget)


def _refuse_repeated_classes(task: ForgetTask, requests: Sequence[Forgotten]) -> None:
    past_classes = frozenset[int]().union(*(r.classes for r in requests))
    again = sorted(past_classes & task.classes)
    if again:
        raise TaskError(
            f"Expected classes not forgotten before, got class {again[0]} again. It stays "
            "forgotten; leave it out of this request."
        )


def _refuse_too_much(gone: frozenset[int], classes: int) -> None:
    if not gone < frozenset(range(classes)) or classes - len(gone) < 2:
        raise TaskError(
            f"Expected at least two of the model's {classes} classes to stay, got a request "
            f"that leaves {classes - len(gone)}."
        )


def _refuse_nothing_left(task: ForgetTask, method: Method) -> None:
    needs = method.needs_for(task.scope)
    summed = "statistics" in needs and task.statistics is None
    if task.chosen is not None and bool(task.chosen.all()) and ("retain" in needs or summed):
        raise TaskError(
            "Expected some rows of `train` to stay, got none: this request and the earlier ones "
            "take all of them. Delete the model instead."
        )


def settled(
    task: ForgetTask, past: Past, model: nn.Module, method: Method, found: Found
) -> tuple[ForgetTask, Past]:
    """The request with the statistics that serve it: its own, or those of the earlier run.

    Raises TaskError where they still hold what was forgotten, or lack a forget record.
    """
    statistics, notes = task.statistics, past.notes
    if statistics is None and past.statistics is not None:
        serves = past.statistics.covers(task.forget.ids) is not False
        if serves or "statistics" in method.needs_for(task.scope):
            statistics = past.statistics
        else:
            notes += ("the feature statistics are void: they do not cover the forget rows",)
    if statistics is not None and found.head is not None:
        statistics.check(model, found.head)
        _refuse_misfit(statistics, task, past)
    given = dataclasses.replace(task.given, statistics=statistics)
    return task.having(given), dataclasses.replace(past, notes=notes)


def _refuse_misfit(statistics: FeatureStatistics, task: ForgetTask, past: Past) -> None:
    known = [i for request in past.forgotten for i in request.ids]
    if statistics.members is not None and any(
        statistics.member(i) in statistics.members for i in known
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


def judge_again(
    request: Request,
    before: Sequence[Outputs],
    after: Sequence[Outputs],
    report: OutcomeReport,
    evidence: Evidence | None,
) -> tuple[OutcomeReport, tuple[str, ...]]:
    """The report, or `ineffective` where records of an earlier request came back; and notes.

    `before` and `after` have one entry for each earlier request whose rows are at hand.
    """
    proven = set() if evidence is None else {record.id for record in evidence.records}
    judge_labels = None if request.split.judge is None else request.split.judge.labels
    figures, back, unjudged = dict(report.figures), list[str](), dict[str, list[str]]()
    past = [(n, r, r.rows) for n, r in enumerate(request.past.forgotten, 1) if r.rows is not None]
    records = sum(earlier.aim == "unseen" for _, earlier, _ in past)
    current = set(content_digests(request.task.forget)) if records else set()
    for (number, earlier, rows), old, new in zip(past, before, after, strict=True):
        case = Judged(
            before=old,
            after=new,
            labels=rows.labels,
            judge_labels=judge_labels,
            gone=request.task.gone,
            limits=request.means.limits,
        )
        if earlier.aim == "unseen":
            # an input that this request forgets too is judged as part of it
            own = torch.tensor([d not in current for d in content_digests(rows)])
            again = unseen_again(_narrowed(case, own, records))
        else:
            again = absent_again(case)
        for name, value in again.figures.items():
            figures[name] = max(figures.get(name, value), value)
        if again.outcome is Outcome.INEFFECTIVE:
            back.append(f"request {number}, {again.reason}")
        if again.outcome is Outcome.UNDETERMINED and not proven.issuperset(earlier.ids):
            unjudged.setdefault(again.reason, []).append(str(number))
    notes = tuple(
        f"records of earlier requests were not judged again: {reason} (request "
        f"{', '.join(numbers)})"
        for reason, numbers in unjudged.items()
    )
    if back and report.outcome is not Outcome.WRECKED:
        again = OutcomeReport.of(Outcome.INEFFECTIVE, Reason.CAME_BACK, which="; ".join(back))
        return again.given(figures), notes
    return dataclasses.replace(report, figures=figures), notes


def _narrowed(case: Judged, own: torch.Tensor, chances: int) -> Judged:
    """The case on these rows alone; each request is one more chance of a false alarm."""
    once = 1 - (1 - case.limits.confidence) / chances
    return dataclasses.replace(
        case,
        before=dataclasses.replace(case.before, forget=case.before.forget[own]),
        after=dataclasses.replace(case.after, forget=case.after.forget[own]),
        labels=case.labels[own],
        limits=dataclasses.replace(case.limits, confidence=once),
    )
