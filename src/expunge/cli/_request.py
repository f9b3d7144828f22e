"""The rows and the request of a job."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import expunge
from expunge.cli._imports import imported, is_import
from expunge.cli._job import Job
from expunge.data.copies import Views, checked_views
from expunge.data.npz import read_npz
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.errors import DataError, JobError
from expunge.network.passes import logits_of
from expunge.task import ForgetTask
from expunge.training import Training

__all__ = ["holdout_of", "outputs_of", "rows_of", "task_of", "views_of"]


def _data(job: Job, text: str, key: str) -> Any:
    if is_import(text):
        make = imported(text, key)
        try:
            return make()
        except Exception as error:
            raise DataError(
                f"Expected `{key}` = {text} to return a Dataset, but it raised "
                f"{type(error).__name__}: {error}. Fix the function."
            ) from error
    path = job.place(text)
    if path.suffix != ".npz":
        raise DataError(f'Expected `{key}` as "package.module:name" or an npz file, got {text!r}.')
    return read_npz(path)


def _entries(job: Job, value: list[Any] | str | None, key: str) -> list[Any] | None:
    """A list given in the job, or read from a .txt (one a row) or .npy file."""
    if value is None or isinstance(value, list):
        return value
    path = job.place(value)
    try:
        if path.suffix == ".npy":
            return list(np.load(path, allow_pickle=False).reshape(-1).tolist())
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise JobError(
            f"Expected `{key}` to be a list or a .txt or .npy file, but reading {value} raised "
            f"{type(error).__name__}: {error}."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _numbers(job: Job, value: list[Any] | str | None, key: str) -> list[int]:
    entries = _entries(job, value, key) or []
    try:
        numbers = [int(e) for e in entries]
    except ValueError as error:
        raise JobError(f"Expected `{key}` to hold integers, but {value} holds {error}.") from error
    if numbers != [e if isinstance(e, float) else int(e) for e in entries]:
        raise JobError(f"Expected `{key}` to hold integers, but {value} holds fractions.")
    return numbers


def holdout_of(job: Job) -> Any:
    """The holdout as the job gives it, or None."""
    return None if job.data.holdout is None else _data(job, job.data.holdout, "data.holdout")


def views_of(job: Job) -> Views | None:
    """What makes label-preserving views of rows, where the job names it."""
    text = job.data.views
    if text is None or not is_import(text):
        return checked_views(text)
    return checked_views(imported(text, "data.views"))


def rows_of(job: Job) -> Rows:
    """The training rows (or the forget rows, where they are given instead) with their ids."""
    key = "train" if job.data.train is not None else "forget"
    text = job.data.train or job.data.forget
    assert text is not None
    ids = _entries(job, job.data.ids, "data.ids")
    return as_rows(_data(job, text, f"data.{key}"), ids=ids, argument=key)


def task_of(job: Job, rows: Rows, training: Training | None) -> ForgetTask:
    """The request of the job on its rows."""
    if job.forget is None:
        raise JobError("Expected a table [forget] in the job, got none. Add `classes` or `ids`.")
    forget = job.forget
    statistics = (
        None
        if job.data.statistics is None
        else expunge.FeatureStatistics.load(job.place(job.data.statistics))
    )
    shared: dict[str, Any] = {
        "holdout": holdout_of(job),
        "statistics": statistics,
        "training": training,
    }
    if forget.aim is not None:
        shared["aim"] = forget.aim
    if forget.classes is not None:
        classes = _numbers(job, forget.classes, "forget.classes")
        if job.data.train is not None:
            return expunge.forget_classes(rows, classes, **shared)
        return expunge.forget_classes(None, classes, forget=rows, **shared)
    if forget.indices is not None:
        return expunge.forget_indices(
            rows, _numbers(job, forget.indices, "forget.indices"), **shared
        )
    return expunge.forget_ids(rows, _entries(job, forget.ids, "forget.ids") or [], **shared)


def outputs_of(model: nn.Module, rows: Rows, most: int) -> tuple[Tensor, Tensor]:
    """Logits and labels of at most `most` rows, evenly spaced."""
    chosen = rows.select(torch.linspace(0, len(rows) - 1, min(most, len(rows))).long())
    return (
        logits_of(model, chosen, batch_size=256, device=torch.device("cpu")),
        chosen.labels,
    )
