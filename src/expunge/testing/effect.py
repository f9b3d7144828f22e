"""Promises about the effect: a class that was asked for is gone, and stays gone in a sequence."""

from __future__ import annotations

import torch

from expunge.data.views import as_rows
from expunge.network.passes import logits_of
from expunge.records import Outcome
from expunge.testing.checking import CPU
from expunge.testing.shared import GONE, NEXT, Subject
from expunge.testing.toys import toy

__all__ = ["class_forgotten", "sequence_stays_forgotten"]


def class_forgotten(subject: Subject) -> None:
    """On the toy the class is gone (at most 5 % recognised) and what stays holds."""
    outcome = subject.run(toy("mlp")).record.outcome
    subject.require(
        outcome.figures.get("forget_after", 100.0) <= 5.0
        and outcome.figures.get("judge_class_after", 100.0) <= 5.0,
        f"the class is still recognised on the toy: {outcome.reason}",
    )
    subject.require(
        outcome.outcome is Outcome.DONE,
        f"outcome {outcome.outcome.value!r} on the toy: {outcome.reason}",
    )


def sequence_stays_forgotten(subject: Subject) -> None:
    """A second request keeps the first forgotten, and never retains its records."""
    made = toy("mlp")
    first = subject.run(made, task=made.absent(GONE))
    second = subject.run(made, first, task=made.absent(NEXT))
    rows = as_rows(made.train)
    gone = torch.isin(rows.labels, torch.tensor([GONE, NEXT]))
    logits = logits_of(second.model, rows, batch_size=64, device=CPU)[gone]
    left = float((logits.argmax(1) == rows.labels[gone]).double().mean())
    subject.require(left <= 0.05, f"{100 * left:.1f} % of both requests are still recognised")
    subject.require(
        second.record.retain_count == int((~gone).sum()),
        "records of the first request were retained in the second",
    )
    subject.require(second.record.earlier_requests == 1, "the first request is not in the record")
    if second.statistics is not None:
        counts = second.statistics.sums.counts[[GONE, NEXT]]
        subject.require(not bool(counts.any()), "the statistics still hold forgotten records")
