"""From a job file to model, data, task, method and references: everything typed errors first."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import expunge
from expunge.cli._imports import imported
from expunge.cli._job import Job, checked_fields
from expunge.cli._request import rows_of
from expunge.data.rows import Inputs, Rows
from expunge.errors import JobError, ModelError
from expunge.methods.legacy import current, written
from expunge.network.copying import copied
from expunge.network.lazy import awakened, lazy_layers
from expunge.network.naming import fitted
from expunge.network.passes import logits_of
from expunge.network.weights import build, load_weights, read_weights
from expunge.records import Limits
from expunge.results.references import refuse_known_class, refuse_references
from expunge.results.unlearned import Unlearned
from expunge.runs.job import ResolvedJob
from expunge.runtime.imports import nearest
from expunge.task import ForgetTask
from expunge.training import Recipe, Training

__all__ = [
    "factory_of",
    "initial_of",
    "limits_of",
    "method_of",
    "model_of",
    "references_of",
    "resolved",
    "training_of",
]


def factory_of(job: Job) -> Callable[[], nn.Module]:
    """The model factory with its arguments bound; lazy layers take shape by two rows of the job."""
    made = functools.partial(imported(job.model.factory, "model.factory"), **job.model.kwargs)
    name = f"model.factory = {job.model.factory}"
    first = functools.cache(lambda: _first_rows(job))

    def factory() -> nn.Module:
        model = build(made, name=name)
        return copied(awakened(model, first())) if lazy_layers(model) else model

    return factory


def _first_rows(job: Job) -> Inputs:
    rows = rows_of(job)
    return rows.batch(torch.arange(min(2, len(rows))))[0]


def model_of(
    job: Job, factory: Callable[[], nn.Module], say: Callable[[str], None]
) -> nn.Module | Unlearned:
    """The trained model in eval mode, or the earlier run with what it forgot.

    `say` is told what was renamed in the weights, and what was left out.
    """
    if job.model.run is not None:
        run = expunge.load_run(job.place(job.model.run), factory=factory)
        if not run.outcome.outcome.accepted:
            raise ModelError(
                f"Expected `model.run` to be a run that was accepted, got {job.model.run}, which "
                f"ended {run.outcome.outcome.value}. Start from the model before it."
            )
        return run
    assert job.model.weights is not None
    return _loaded(factory(), job.place(job.model.weights), job.model.weights, say)


def _loaded(
    model: nn.Module, path: Path, source: str, say: Callable[[str], None] | None = None
) -> nn.Module:
    """`model` in eval mode with the weights of a file, under the model's names."""
    found = fitted(model.state_dict(), read_weights(path))
    for note in found.notes if say is not None else ():
        say(f"{source}: {note}")  # type: ignore[misc]
    return load_weights(model, found.state, source=source).eval()


def initial_of(job: Job, model: nn.Module) -> dict[str, Tensor] | None:
    """The weights before training under the model's names, where the job names them."""
    if job.model.initial is None:
        return None
    return fitted(model.state_dict(), read_weights(job.place(job.model.initial))).state


def training_of(job: Job, factory: Callable[[], nn.Module]) -> Training | None:
    """How the model is trained: the job's recipe, or its own `fit`."""
    if job.training is None:
        return None
    table = dict(job.training)
    if "fit" in table:
        rest = [k for k in table if k != "fit"]
        if rest:
            raise JobError(
                f"Expected `fit` alone in [training], got {rest[0]!r} beside it. Your function "
                "decides everything else."
            )
        return Training(factory, imported(_text(table["fit"], "training.fit"), "training.fit"))
    transform = table.pop("transform", None)
    values = checked_fields(Recipe, table, "training")
    if transform is not None:
        key = "training.transform"
        values["transform"] = imported(_text(transform, key), key)
    return Training(factory, Recipe(**values))


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise JobError(f'Expected `{key}` as "package.module:name", got {value!r}.')
    return value


def method_of(job: Job, name: str | None) -> expunge.Method:
    """The method of the job with its settings, or the one called `name` with its defaults."""
    table = dict(job.method or {})
    own = table.pop("name", None)
    wanted = name or own
    if wanted is None:
        raise JobError("Expected a table [method] with a name, got none. See `expunge methods`.")
    given = table if wanted == own else {}
    today, settings = current(wanted, given)
    by_name = {m.info.name: m for m in expunge.METHODS}
    if today not in by_name:
        raise JobError(f"Expected the name of a method, got {today!r}. {nearest(today, by_name)}")
    kind = by_name[today]
    return kind(**checked_fields(kind, settings, "method", written=written(wanted, given)))


def limits_of(job: Job) -> Limits:
    """The limits of the job; the rest are the defaults."""
    return Limits(**checked_fields(Limits, job.limits, "limits"))


def references_of(
    job: Job,
    factory: Callable[[], nn.Module],
    rows: Rows,
    start: nn.Module | Unlearned,
    task: ForgetTask,
) -> list[nn.Module | Unlearned]:
    """The retrained models that the job names, each tried on two rows and on forget records."""
    model = start.model if isinstance(start, Unlearned) else start
    found: dict[str, nn.Module | Unlearned] = {}
    two = rows.select(torch.arange(min(2, len(rows))))
    for name in job.references.retrained:
        path = job.place(name)
        if path.is_dir():
            entry: nn.Module | Unlearned = expunge.load_run(path, factory=factory)
        else:
            entry = _loaded(factory(), path, name)
        found[f"reference {name}"] = entry
        own = _said(_module(entry), two).shape[1]
        if own != _said(model, two).shape[1]:
            raise ModelError(f"Expected reference {name} to have the model's outputs, got {own}.")
    forgotten = start.forgotten if isinstance(start, Unlearned) else ()
    refuse_references(found, task, model, forgotten)
    places = torch.linspace(0, len(task.forget) - 1, min(_FEW, len(task.forget))).long()
    few = task.forget.select(places)
    for name, entry in found.items() if task.scope == "classes" else ():
        logits = _said(_module(entry), few)
        refuse_known_class(name, task, logits, few.labels, limits_of(job))
    return list(found.values())


_FEW = 256
"""How many forget rows a reference is tried on before work starts."""


def _module(entry: nn.Module | Unlearned) -> nn.Module:
    return entry.model if isinstance(entry, Unlearned) else entry


def _said(model: nn.Module, rows: Rows) -> Tensor:
    return logits_of(model, rows, batch_size=_FEW, device=torch.device("cpu"))


def resolved(job: Job, method: expunge.Method, limits: Limits) -> ResolvedJob:
    """The job with every default filled in, and the digests of the files it names."""
    settings: dict[str, Any] = job.model_dump(exclude_none=True)
    own = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    settings["method"] = {"name": method.info.name, **own}
    settings["limits"] = dataclasses.asdict(limits)
    if job.training is not None and "fit" not in job.training:
        defaults = {f.name: f.default for f in dataclasses.fields(Recipe)}
        settings["training"] = defaults | job.training
    files = {}
    for table in ("model", "data", "forget"):
        for key, value in settings.get(table, {}).items():
            if isinstance(value, str) and job.place(value).is_file():
                files[f"{table}.{key}"] = _digest(job.place(value))
    for i, value in enumerate(job.references.retrained):
        place = job.place(value)
        place = place / "record.json" if place.is_dir() else place
        files[f"references.retrained.{i}"] = _digest(place)
    if job.model.run is not None:
        files["model.run"] = _digest(job.place(job.model.run) / "record.json")
    return ResolvedJob(settings=settings, files=files, folder=str(job.folder))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
