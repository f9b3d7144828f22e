"""Promises about what is refused: bad requests, and scopes and aims that are not declared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import get_args

from expunge.errors import TaskError, UnsupportedError
from expunge.records import Aim, Outcome
from expunge.task import ForgetTask, forget_ids
from expunge.testing.shared import GONE, Subject, copies_of
from expunge.testing.toys import toy
from expunge.unlearning.door import unlearn

__all__ = [
    "bad_requests_refused",
    "cnn_served",
    "dict_rows_served_or_refused",
    "refused_unedited",
    "unsupported_refused",
]


def bad_requests_refused(subject: Subject) -> None:
    """Empty, overlapping, unknown and duplicate records are refused by message, before any edit."""
    made = toy("mlp")
    n = len(made.train)
    overlapping = dataclasses.replace(made, holdout=made.train)
    refusals: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (TaskError, "at least one class", lambda: made.absent()),
        (TaskError, "at least one record", lambda: made.unseen()),
        (TaskError, "to leave some records", lambda: made.unseen(*range(n))),
        (TaskError, "rows of class 77", lambda: made.absent(77)),
        (TaskError, f"between 0 and {n - 1}", lambda: made.unseen(n)),
        (TaskError, "3 twice", lambda: made.unseen(3, 3)),
        (TaskError, "unknown id 'zz'", lambda: forget_ids(made.train, ["zz"])),
        (TaskError, "duplicate id '7'", lambda: made.absent(GONE, ids=[7] * n)),
        (TaskError, "also in the forget set", lambda: subject.run(overlapping)),
    ]
    for kind, words, attempt in refusals:
        subject.expect(kind, words, attempt)


def refused_unedited(subject: Subject, words: str, task: ForgetTask) -> None:
    """Raise ContractError where a request is not refused in these words before work begins."""
    model = toy("mlp").untidy()
    copies = copies_of(model)
    subject.expect(UnsupportedError, words, lambda: unlearn(model, subject.method, task, seed=0))
    subject.require(not copies, "work was begun before the refusal")


def unsupported_refused(subject: Subject) -> None:
    """A scope or an aim that is not declared is refused by name before any edit."""
    made, info = toy("mlp"), subject.info
    tasks = {"classes": made.absent(GONE), "records": made.unseen(0, 5, 10)}
    for scope, task in tasks.items():
        if scope not in info.scopes:
            refused_unedited(subject, repr(info.name), task)
    for aim in get_args(Aim):
        if aim not in info.aims:
            served = dataclasses.replace(subject.request(made), aim=aim)
            refused_unedited(subject, repr(aim), served)


def cnn_served(subject: Subject) -> None:
    """A convolutional net with batch norm is served.

    A method that refuses it declares that, and is checked on the plain ReLU MLP instead.
    """
    refused = subject.refusal(toy("cnn"))
    subject.require(refused is None, f"refuses the toy 'cnn': {refused}")


def dict_rows_served_or_refused(subject: Subject) -> None:
    """Dict rows and outputs with `.logits` work like tensors, or are refused by name."""
    try:
        result = subject.tried(toy("mapping"))
    except UnsupportedError as error:
        said = subject.info.name in str(error)
        subject.require(said, f"the refusal names no method: {error}")
        return
    outcome = result.record.outcome.outcome
    subject.require(outcome is not Outcome.NO_OP, "dict rows changed nothing")
