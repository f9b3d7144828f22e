"""`expunge check`: a dry run. Everything is loaded and checked, nothing is edited or written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from expunge.cli._console import Screen, command

if TYPE_CHECKING:
    from expunge.cli._job import Job
    from expunge.cli._session import OpenedJob
    from expunge.data.rows import Rows
    from expunge.records import OutcomeReport
    from expunge.task import ForgetTask
    from expunge.unlearning.door import Rehearsal

__all__ = ["check"]

_SIZES = (
    "forget_count",
    "twins_count",
    "retain_count",
    "tune_count",
    "judge_count",
    "dropped_from_holdout",
    "repeats_count",
    "statistics",
)
_LOOK = 2048
_AUDITED = 2 * 2_000


def check(
    job: Path = typer.Argument(help="The job file."),
    method: str = typer.Option(None, "--method", help="Another method than the job's."),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Load everything a job names, check the request, and say what a run would cost."""
    with command() as screen:
        _check(screen, job, method, as_json=as_json)


def _check(screen: Screen, path: Path, method_name: str | None, *, as_json: bool) -> None:
    from expunge.cli._job import read_job
    from expunge.cli._load import references_of
    from expunge.cli._session import open_job
    from expunge.unlearning.door import rehearse
    from expunge.unlearning.foreseen import foreseen

    job = read_job(path)
    with open_job(job, method_name, screen) as work:
        found = rehearse(
            work.model,
            work.method,
            work.task,
            seed=job.seed,
            head=job.model.head,
            initial=work.initial,
            limits=work.limits,
            repeats=job.data.repeats,
            already="error" if job.forget is None else job.forget.already,
        )
        references = references_of(job, work.factory, work.rows, work.model, work.task)
        ahead = _ahead(foreseen(found.request))
        facts = ahead | _facts(work, found) | {"references": len(references)}
    facts |= _expected(job, work, found, facts["seconds_a_row"])
    _show(screen, facts)
    if as_json:
        screen.json(facts)
    screen.then(f"expunge unlearn {path}" + (f" --method {method_name}" if method_name else ""))


def _ahead(reports: Sequence[OutcomeReport]) -> dict[str, Any]:
    """What makes the outcome `undetermined` from the start: code and sentence of each reason."""
    codes = [None if report.why is None else report.why.value for report in reports]
    words = [report.reason for report in reports]
    return {
        "undetermined": [
            {"why": why, "reason": reason} for why, reason in zip(codes, words, strict=True)
        ]
    }


def _facts(work: OpenedJob, found: Rehearsal) -> dict[str, Any]:
    from expunge.cli._request import outputs_of
    from expunge.judging.known import near_chance

    rows, where = work.rows, "train" if work.task.retain is not None else "forget"
    if work.task.holdout is not None:
        rows, where = work.task.holdout, "holdout"
    rows = _still_known(work, rows)
    outputs_of(work.module, rows, 64)  # the first batch pays for warming up
    start = time.perf_counter()
    logits, labels = outputs_of(work.module, rows, _LOOK)
    seconds = (time.perf_counter() - start) / len(labels)
    accuracy = 100.0 * float((logits.argmax(1) == labels).double().mean())
    chance, head = 100.0 / found.found.classes, found.found.head
    return {
        "method": work.method.info.name,
        "head": None if head is None else head.name,
        "features": None if head is None else head.features,
        "classes": found.found.classes,
        "class_names": None if work.rows.names is None else list(work.rows.names.names),
        "notes": list(found.request.past.notes),
        "accuracy": accuracy,
        "accuracy_rows": where,
        "chance": chance,
        "near_chance": near_chance(accuracy, chance),
        **{name: getattr(found, name) for name in _SIZES},
        "joined_count": max(0, found.forget_count - len(work.task.forget)),
        "refused_count": len(found.refused),
        "refused_reasons": sorted(set(found.refused.values())),
        "needs": sorted(work.method.needs_for(work.task.scope)),
        "seconds_a_row": seconds,
    }


def _still_known(work: OpenedJob, rows: Rows) -> Rows:
    """The rows without classes that an earlier run forgot: their accuracy says nothing."""
    import torch

    from expunge.results.unlearned import Unlearned

    if not isinstance(work.model, Unlearned):
        return rows
    gone = sorted({c for request in work.model.forgotten for c in request.classes})
    stays = ~torch.isin(rows.labels, torch.tensor(gone, dtype=torch.int64))
    return rows.select(stays.nonzero().flatten()) if bool(stays.any()) else rows


def _expected(job: Job, work: OpenedJob, found: Rehearsal, a_row: float) -> dict[str, Any]:
    """Rows that would pass through the model, training steps counted as three passes.

    The door reads forget and judge rows before and after, for records a noisy copy and each view
    of them too; of what stays the audit of a request for records reads at most 2,000 rows of all
    classes and 2,000 of the records' own, before and after.
    """
    needs, task = work.method.needs_for(work.task.scope), work.task
    retain = found.retain_count or 0
    rows = 2 * (found.forget_count + found.judge_count)
    if task.scope == "records":
        rows += rows * (1 + _views(task)) + 2 * min(retain, _AUDITED)
    if "statistics" in needs and not found.statistics:
        rows += retain + found.forget_count
    known = True
    if "training" in needs:
        epochs = getattr(None if task.training is None else task.training.fit, "epochs", None)
        known = isinstance(epochs, int)
        rows += 3 * retain * epochs if isinstance(epochs, int) else 0
    elif "retain" in needs:
        rows += 3 * retain * int(getattr(work.method, "epochs", 1))
    steps = getattr(work.method, "most_steps", None)
    if isinstance(steps, int):  # a step that differentiates twice costs about twelve passes
        rows += 12 * steps * (getattr(work.method, "batch_size", None) or found.forget_count)
    return {
        "cost": work.method.info.cost,
        "expected_seconds": rows * a_row if known else None,
    }


def _views(task: ForgetTask) -> int:
    """How many views of a row there are."""
    from expunge.data.copies import viewed

    return 0 if task.views is None else len(viewed(task.forget, task.views))


def _show(screen: Screen, facts: dict[str, Any]) -> None:
    _warn(screen, facts)
    head = (
        "none found"
        if facts["head"] is None
        else (
            f"{facts['head'] or '(the model itself)'}, {facts['features']} features, "
            f"{facts['classes']} classes"
        )
    )
    expected = facts["expected_seconds"]
    retain = facts["retain_count"]
    stays = "not given" if retain is None else f"{retain:,} rows"
    holdout = f"{facts['tune_count']:,} to tune, {facts['judge_count']:,} to judge" + _left(facts)
    rows = [
        ("method", facts["method"]),
        ("head", head),
        ("accuracy before", f"{facts['accuracy']:.2f} % on {facts['accuracy_rows']}"),
        ("forget", f"{facts['forget_count']:,} rows matched" + _joined(facts)),
        *_refused(facts),
        *_twins(facts),
        ("what stays", stays),
        ("holdout", holdout if facts["judge_count"] else "none: the outcome stays open"),
        ("needs, all met", ", ".join(facts["needs"])),
        ("references", str(facts["references"])),
        ("cost", facts["cost"]),
        (
            "expected time",
            "that of your `fit`" if expected is None else f"up to {_readable(expected)} on the CPU",
        ),
    ]
    screen.table(("", ""), rows, left=True)
    if facts["class_names"] is not None:
        shown = ", ".join(f"{n} = {name}" for n, name in enumerate(facts["class_names"][:20]))
        screen.say(f"classes: {shown}" + (", ..." if len(facts["class_names"]) > 20 else ""))
    for note in facts["notes"]:
        screen.say(f"note: {note}")


def _warn(screen: Screen, facts: dict[str, Any]) -> None:
    """Say first why no run can end `done`, and where the model knows hardly anything."""
    from expunge.reasons import Reason

    for reason in facts["undetermined"]:
        screen.warn(f"undetermined from the start: {reason['reason']}")
    said = {reason["why"] for reason in facts["undetermined"]}
    if facts["near_chance"] and Reason.NEAR_CHANCE_BEFORE.value not in said:
        screen.warn(
            f"the accuracy is near chance ({facts['chance']:.1f} %): normalisation or label order?"
        )


def _joined(facts: dict[str, Any]) -> str:
    joined = facts["joined_count"]
    return f", {joined:,} of them rows with the same input as a record" if joined else ""


def _refused(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The row that says for how many records nothing would be done, where there are some."""
    refused, asked = facts["refused_count"], facts["forget_count"]
    if not refused:
        return []
    verb, they = ("is", "it") if refused == 1 else ("are", "they")
    why = " or ".join(facts["refused_reasons"])
    words = f"{refused:,} of {asked:,} records {verb} {why}: {they} would be refused"
    return [("refused", words)]


def _twins(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The row that says how many records stay under another id, where there are some."""
    count = facts["twins_count"]
    if not count:
        return []
    words = f"{count:,} of {facts['forget_count']:,} records stay in train under another id"
    return [("twins", words)]


def _left(facts: dict[str, Any]) -> str:
    """How many rows the holdout loses, and to what."""
    lost = (
        (facts["dropped_from_holdout"], "dropped: also to be forgotten"),
        (facts["repeats_count"], "dropped: also among the training rows that stay"),
    )
    return "".join(f" ({count:,} {words})" for count, words in lost if count)


def _readable(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
