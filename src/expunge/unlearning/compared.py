"""Content that is in the data more than once: repeats in the holdout, twins of forget records.

Told by the digests of the rows' own content, and only where the method reads the training rows
anyway: to compare them, each is read once more, and passes through no network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from expunge.data.digests import content_digests, digested
from expunge.judging.split import Repeats, Split, refuse_repeats, tune_and_judge
from expunge.methods.base import Method
from expunge.task import ForgetTask
from expunge.unlearning.request import Past

__all__ = ["Twins", "many", "reads_training", "split_of", "twins_of", "with_digests"]


Twins = Mapping[str, tuple[str, ...]]
"""By id of a forget record: the ids of the rows that stay and have the same content."""


def reads_training(task: ForgetTask, method: Method) -> bool:
    """Whether the method reads the rows that stay: itself, or for statistics made for it now."""
    needs = method.needs_for(task.scope)
    summed = "statistics" in needs and task.statistics is None
    return task.chosen is not None and (summed or not needs.isdisjoint({"retain", "training"}))


def with_digests(task: ForgetTask, method: Method) -> ForgetTask:
    """The request with the digests of its holdout, and of its rows where the method reads these."""
    if task.holdout is not None:
        task = task.having(dataclasses.replace(task.given, holdout=digested(task.holdout)))
    if not reads_training(task, method):
        return task
    return dataclasses.replace(task, rows=digested(task.rows))


def split_of(task: ForgetTask, past: Past, method: Method, repeats: Repeats) -> tuple[Split, Past]:
    """The holdout in its halves, without rows of forget sets and training rows that stay; notes.

    Raises TaskError where too many of its rows are among them.
    """
    if task.holdout is None:
        return Split(), past
    forgotten = [r.rows for r in past.forgotten if r.rows is not None]
    stays = task.retain if reads_training(task, method) else None
    split = tune_and_judge(task.holdout, [task.forget, *forgotten], past.split_seed, stays)
    refuse_repeats(split, task.holdout, repeats)
    notes = past.notes
    if split.dropped:
        notes += (f"{split.dropped} holdout rows are also in a forget set and were left out",)
    if split.repeats:
        found = f"{split.repeats} holdout rows are also among the training rows that stay"
        notes += (f"{found} and were left out",)
    return split, dataclasses.replace(past, notes=notes)


def twins_of(task: ForgetTask, method: Method) -> Twins | None:
    """Forget records whose content stays under another id; None where none were compared."""
    if task.retain is None or not reads_training(task, method):
        return None
    forget = content_digests(task.forget)
    wanted, stays = set(forget), dict[bytes, list[str]]()
    for text, digest in zip(task.retain.ids, content_digests(task.retain), strict=True):
        if digest in wanted:
            stays.setdefault(digest, []).append(text)
    pairs = zip(task.forget.ids, forget, strict=True)
    return {text: tuple(stays[digest]) for text, digest in pairs if digest in stays}


def many(twins: Twins | None, records: int) -> bool:
    """Whether so many of the records have twins that what is left of them can be the twins'."""
    return len(twins or ()) > 0.01 * records
