"""A job with everything it names loaded and checked: what the commands work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

import expunge
from expunge.cli._console import Screen
from expunge.cli._imports import importable
from expunge.cli._job import Job
from expunge.cli._load import (
    factory_of,
    initial_of,
    limits_of,
    method_of,
    model_of,
    training_of,
)
from expunge.cli._request import rows_of, task_of, views_of
from expunge.data.rows import Rows
from expunge.errors import InputError
from expunge.records import Limits
from expunge.results.unlearned import Unlearned
from expunge.task import ForgetTask

__all__ = ["OpenedJob", "open_job", "with_seed"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedJob:
    """Model, method, request and settings of one job."""

    factory: Callable[[], nn.Module]
    model: nn.Module | Unlearned
    method: expunge.Method
    rows: Rows
    task: ForgetTask
    limits: Limits
    initial: Mapping[str, Tensor] | None

    @property
    def module(self) -> nn.Module:
        """The model itself, also where it comes from an earlier run."""
        return self.model.model if isinstance(self.model, Unlearned) else self.model


def _forgotten(model: nn.Module | Unlearned) -> frozenset[str]:
    """The ids of all records that the run it starts from has forgotten."""
    requests = model.forgotten if isinstance(model, Unlearned) else ()
    return frozenset(i for request in requests for i in request.ids)


def with_seed(job: Job, seed: int | None) -> Job:
    """The job with the seed of the command line, where one is given."""
    if seed is None:
        return job
    if seed < 0:
        raise InputError(f"Expected `--seed` from 0, got {seed}.")
    return job.model_copy(update={"seed": seed})


@contextmanager
def open_job(job: Job, method_name: str | None, screen: Screen) -> Iterator[OpenedJob]:
    """Load what the job names; its folder and the working directory stay importable inside.

    The settings are checked before the model, and the model before the data.
    """
    with importable(job):
        method = method_of(job, method_name)
        own = (job.method or {}).get("name")
        if method_name not in (None, own) and len(job.method or {}) > 1:
            screen.warn(f"the settings of {own} under [method] are not used")
        limits = limits_of(job)
        views = views_of(job)
        factory = factory_of(job)
        training = training_of(job, factory)
        model = model_of(job, factory, screen.say)
        initial = initial_of(job, model.model if isinstance(model, Unlearned) else model)
        rows = rows_of(job)
        task = task_of(job, rows, training, _forgotten(model))
        yield OpenedJob(
            factory=factory,
            model=model,
            method=method,
            rows=rows,
            task=task.having(dataclasses.replace(task.given, views=views)),
            limits=limits,
            initial=initial,
        )
