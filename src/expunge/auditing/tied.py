"""An audit belongs to its run: rows of another request, and another original, are refused."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from expunge.data.digests import content_digests
from expunge.errors import ModelError, TaskError
from expunge.network.state import digest_of, state_of
from expunge.records import RunRecord
from expunge.results.forgotten import holdout_commitment, unlike
from expunge.results.unlearned import Unlearned
from expunge.task import ForgetTask

__all__ = [
    "refuse_other_holdout",
    "refuse_other_original",
    "refuse_other_request",
    "without_skipped",
]


def without_skipped(result: Unlearned, task: ForgetTask) -> ForgetTask:
    """The request without records that an earlier one had forgotten: the run passed them over."""
    earlier = {i for request in result.forgotten[:-1] for i in request.ids}
    if task.scope != "records" or task.chosen is None or earlier.isdisjoint(task.forget.ids):
        return task
    known = torch.tensor([i in earlier for i in task.rows.ids], dtype=torch.bool)
    places = (~(task.chosen & known)).nonzero().flatten()
    if not bool(task.chosen[places].any()):
        return task
    rows, chosen = task.rows.select(places), task.chosen[places]
    return dataclasses.replace(task, rows=rows, chosen=chosen)


def refuse_other_request(result: Unlearned, task: ForgetTask) -> None:
    """Raise TaskError where `task` is not the request that the run served, as it was asked.

    Aim, scope, classes and ids are compared, then labels, and contents where the run's rows are in
    memory. For a run loaded without its private part: aim, scope, and the number of records.
    """
    record = result.record
    if (task.aim, task.scope) != (record.aim, record.scope):
        raise _other(f"one for {task.scope} with aim {task.aim!r}, not {record.scope}")
    if not result.forgotten:
        _refuse_other_number(record, task)
        return
    latest = result.forgotten[-1]
    if task.classes != latest.classes:
        raise _other(f"one for classes {sorted(task.classes)}, not {sorted(latest.classes)}")
    asked = set(task.forget.ids)
    if task.scope == "classes":
        asked -= {i for request in result.forgotten[:-1] for i in request.ids}
    taken = {*latest.ids, *result.refused} - set(latest.joined)
    more, fewer = asked - taken, taken - asked
    if more or fewer:
        first = next((i for i in task.forget.ids if i in more), min(fewer, default=""))
        raise _other(
            f"one with other records: {len(more)} of `task` were not in it and {len(fewer)} of "
            f"it are not in `task`, {first!r} first"
        )
    if result.read is not None and result.read.task is task:
        return
    other = unlike(latest, task.forget)
    if other is not None:
        raise _other(f"one whose row {other[0]!r} is {other[1]}")


def refuse_other_holdout(result: Unlearned, task: ForgetTask) -> None:
    """Raise TaskError for another holdout than the one that the run was judged on.

    Where the record tells (its private part is at hand, and it is not an older one's), and the task
    has a holdout at all.
    """
    stated = result.record.holdout_commitment
    own = result.read is not None and result.read.task is task
    if stated is None or task.holdout is None or own or not result.forgotten:
        return
    if holdout_commitment(result.forgotten[-1].salt, task.holdout) != stated:
        raise TaskError(
            "Expected the holdout that the run was judged on, got one with other rows or labels: "
            "the figures would be of other rows than the outcome. Pass the very holdout of the "
            "request; to judge on another one, unlearn with it."
        )


def refuse_other_original(result: Unlearned, original: nn.Module | None) -> None:
    """Raise ModelError where `original` has other weights than the model given to `unlearn`."""
    if original is None:
        return
    digest, given = digest_of(state_of(original)), result.record.digest_before
    if digest != given:
        raise ModelError(
            f"Expected `original` to be the model that was given to `unlearn` ({given[:12]}), got "
            f"one with other weights ({digest[:12]}). Pass that very model, unchanged since."
        )


def _refuse_other_number(record: RunRecord, task: ForgetTask) -> None:
    """Raise TaskError for a number of records that the run cannot have had."""
    asked, taken = len(task.forget), record.forget_count
    if asked > taken:
        fits = task.scope == "classes" and record.earlier_requests > 0
    else:
        fits = asked == taken or taken <= asked + _same_inputs(task)
    if not fits:
        raise _other(f"one with {asked:,} records, not {taken:,}")


def _same_inputs(task: ForgetTask) -> int:
    """How many rows that stay are the same input as a forget record: they may have joined it."""
    if task.retain is None:
        return 0
    known = set(content_digests(task.forget))
    return sum(digest in known for digest in content_digests(task.retain))


def _other(found: str) -> TaskError:
    return TaskError(
        f"Expected `task` to be the request that the run served, got {found}. Audit a run with "
        "the very request that it was made for."
    )
