"""The rows and the request of a job."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

import expunge
from expunge.cli._imports import imported, is_import
from expunge.cli._job import Job
from expunge.cli._lists import entries_in, numbers_in
from expunge.data.copies import Views, checked_views
from expunge.data.items import Fields
from expunge.data.npz import read_npz
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.errors import DataError, JobError, TaskError
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


def _fields(job: Job) -> Fields:
    """What the job says of the data's columns and class names."""
    classes = entries_in(job, job.data.classes, "data.classes")
    return Fields(input=job.data.input, label=job.data.label, classes=classes)


def holdout_of(job: Job, rows: Rows) -> Rows | None:
    """The holdout of the job or None, its classes named as in the other rows."""
    if job.data.holdout is None:
        return None
    fields = dataclasses.replace(_fields(job), classes=rows.names)
    return as_rows(_data(job, job.data.holdout, "data.holdout"), argument="holdout", fields=fields)


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
    ids = entries_in(job, job.data.ids, "data.ids")
    return as_rows(_data(job, text, f"data.{key}"), ids=ids, argument=key, fields=_fields(job))


def task_of(
    job: Job, rows: Rows, training: Training | None, forgotten: frozenset[str] = frozenset()
) -> ForgetTask:
    """The request of the job on its rows; `forgotten` are the ids of earlier requests."""
    if job.forget is None:
        raise JobError("Expected a table [forget] in the job, got none. Add `classes` or `ids`.")
    forget = job.forget
    statistics = (
        None
        if job.data.statistics is None
        else expunge.FeatureStatistics.load(job.place(job.data.statistics))
    )
    shared: dict[str, Any] = {
        "holdout": holdout_of(job, rows),
        "statistics": statistics,
        "training": training,
    }
    if forget.aim is not None:
        shared["aim"] = forget.aim
    if forget.classes is not None:
        classes = _classes(job, forget.classes, rows)
        if job.data.train is not None:
            return expunge.forget_classes(rows, classes, **shared)
        return expunge.forget_classes(None, classes, forget=rows, **shared)
    if forget.indices is not None:
        return expunge.forget_indices(
            rows, numbers_in(job, forget.indices, "forget.indices"), **shared
        )
    ids = entries_in(job, forget.ids, "forget.ids") or []
    left = _without_gone(ids, rows, forgotten, forget.already)
    if len(left) < len(ids):
        words = f"{len(ids) - len(left)} ids of the request were forgotten before and were passed"
        note = f"{words} over: their rows are no longer in the data"
        rows = dataclasses.replace(rows, notes=(*rows.notes, note))
    return expunge.forget_ids(rows, left, **shared)


def _without_gone(ids: list[Any], rows: Rows, forgotten: frozenset[str], already: str) -> list[Any]:
    """The ids without those that are forgotten and have left the data since."""
    gone = forgotten - frozenset(rows.ids)
    again = [entry for entry in ids if str(entry) in gone]
    if not again:
        return ids
    if already == "error":
        raise TaskError(
            f"Expected records not forgotten before, got {again[0]!r} again ({len(again)} of "
            f"{len(ids)}; their rows are no longer in the data). Leave them out, or say "
            '`already = "skip"` in [forget].'
        )
    left = [entry for entry in ids if str(entry) not in gone]
    if not left:
        raise TaskError(
            f"Expected some records not forgotten before, got {len(ids)} that all are. They stay "
            "forgotten; nothing is left to do."
        )
    return left


def _classes(job: Job, value: list[Any] | str, rows: Rows) -> list[Any]:
    """Class numbers, a mask, or names where the labels of the data are names."""
    if rows.names is None:
        return numbers_in(job, value, "forget.classes")
    entries = entries_in(job, value, "forget.classes") or []
    named = any(isinstance(entry, str) and entry in rows.names.names for entry in entries)
    return entries if named else numbers_in(job, value, "forget.classes")


def outputs_of(model: nn.Module, rows: Rows, most: int) -> tuple[Tensor, Tensor]:
    """Logits and labels of at most `most` rows, evenly spaced."""
    chosen = rows.select(torch.linspace(0, len(rows) - 1, min(most, len(rows))).long())
    return (
        logits_of(model, chosen, batch_size=256, device=torch.device("cpu")),
        chosen.labels,
    )
