"""Promises about what a method is handed: what is not declared is never read, the rest is asked."""

from __future__ import annotations

import dataclasses

import torch

from expunge.data.views import as_rows
from expunge.network.heads import find_head
from expunge.records import Outcome
from expunge.statistics.collect import collect_statistics
from expunge.statistics.features import FeatureStatistics
from expunge.testing.refusals import refused_unedited
from expunge.testing.shared import Subject
from expunge.testing.toys import Toy, toy

__all__ = ["missing_needs_refused", "retain_never_read"]


def retain_never_read(subject: Subject) -> None:
    """`retain` is not needed for this request: rows that raise on access make no difference."""
    made = subject.toy()
    forget = {int(i) for i in subject.request(made).forget.ids}

    def guard(position: int) -> None:
        if position not in forget:
            raise RuntimeError(f"retained row {position} was read")

    statistics = _statistics(made) if "statistics" in subject.needs else None
    guarded = subject.request(made.watched(guard), statistics=statistics)
    outcome = subject.run(made, task=guarded).record.outcome.outcome
    subject.require(outcome is not Outcome.NO_OP, "nothing was edited")


def _statistics(made: Toy) -> FeatureStatistics:
    model, rows = made.trained(), as_rows(made.train)
    inputs, _ = rows.batch(torch.arange(2))
    statistics, _ = collect_statistics(model, find_head(model, inputs), rows)
    return statistics


def missing_needs_refused(subject: Subject) -> None:
    """What is needed and not given is refused by the method's name before any edit."""
    task = subject.request(toy("mlp"))
    given = task.given
    lacking = {
        "retain": task.alone(),
        "statistics": task.alone().having(dataclasses.replace(given, statistics=None)),
        "training": task.having(dataclasses.replace(given, training=None)),
        "holdout": task.having(dataclasses.replace(given, holdout=None)),
    }
    for need, poorer in lacking.items():
        if need in subject.needs:
            refused_unedited(subject, repr(subject.info.name), poorer)
