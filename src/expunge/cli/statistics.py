"""`expunge statistics`: sums over the training features, for when the data are gone."""

from __future__ import annotations

from pathlib import Path

import typer

from expunge.cli._console import Screen, command

__all__ = ["statistics"]


def statistics(
    job: Path = typer.Argument(help="The job file; [model] and [data] are read."),
    out: Path = typer.Option(..., "--out", help="The safetensors file to write; must not exist."),
) -> None:
    """Collect feature statistics, from which later requests can be served without the data."""
    with command() as screen:
        _collect(screen, job, out)
        screen.result(str(out))
        screen.then(f'put statistics = "{out.name}" under [data], then: expunge check {job}')


def _collect(screen: Screen, path: Path, out: Path) -> None:
    import torch

    from expunge.cli._imports import importable
    from expunge.cli._job import read_job
    from expunge.cli._load import factory_of, model_of
    from expunge.cli._request import rows_of
    from expunge.errors import JobError
    from expunge.network.calls import unwritten
    from expunge.network.heads import find_head
    from expunge.network.weights import writing
    from expunge.results.forgotten import found_again, never_forgotten
    from expunge.results.unlearned import Unlearned
    from expunge.statistics.collect import collect_statistics
    from expunge.storage.whole import new_file, refuse_existing
    from expunge.unlearning.checks import refuse_random_rows
    from expunge.unlearning.found import look_at_answers

    refuse_existing(out)
    job = read_job(path)
    if job.data.train is None:
        raise JobError(
            "Expected `train` in [data] for feature statistics, got `forget`. They are sums over "
            "all training rows."
        )
    with importable(job):
        model = model_of(job, factory_of(job), screen.say)
        rows = rows_of(job)
        refuse_random_rows(rows, "train")
        if isinstance(model, Unlearned):
            if not model.history_known:
                raise JobError(
                    "Expected a run with its private/ folder, got one without: what it forgot is "
                    "unknown and would be summed again."
                )
            requests = [found_again(request, rows) for request in model.forgotten]
            rows, model = never_forgotten(rows, requests), model.model
        with unwritten(model):
            look_at_answers(model, rows)
        inputs, _ = rows.batch(torch.arange(min(2, len(rows))))
        head = find_head(model, inputs, name=job.model.head)
        if head.kind != "plain":
            raise JobError(
                f"Expected a model with a plain linear head, got one that is {head.kind} by an "
                "earlier request: no method could use its statistics."
            )
        found, _ = collect_statistics(model, head, rows)
    with new_file(out) as file, writing(file):
        found.save(file)
    screen.say(
        f"{found.sums.rows:,} rows, {found.features} features, {found.classes} classes, head "
        f"{found.head!r}. Keep the file as safe as the data: differences of such sums reveal rows."
    )
