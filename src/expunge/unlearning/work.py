"""The work itself: a private copy, what the method is handed, and how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from expunge.methods.run import Run
from expunge.network.copying import copied
from expunge.network.state import hook_count
from expunge.runtime.machine import peak_bytes, reset_peak
from expunge.statistics.collect import collect_statistics
from expunge.task import ForgetTask, Given
from expunge.unlearning.request import Look, Request

__all__ = ["Work", "private_copy", "worked"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What a method made of its copy: `result` is what `apply` returned, whatever it is."""

    result: Any
    handed: ForgetTask
    run: Run
    hooks: int
    seconds: float
    peak_bytes: int


def private_copy(request: Request) -> nn.Module:
    """A copy of the given model on the run's device, in eval mode and without gradients."""
    return copied(request.model).to(request.means.device).eval()


def worked(request: Request, own: nn.Module, look: Look, generator: torch.Generator) -> Work:
    """Hand the method its part of the request, let it edit the copy, and time it."""
    device, classes = request.means.device, request.found.classes
    run = Run(
        means=request.means,
        generator=generator,
        classes=classes,
        kept=tuple(c for c in range(classes) if c not in request.task.gone),
        before=request.before,
        forget_logits=look.outputs[0].forget,
    )
    handed = _handed(request, own, run)
    hooks = hook_count(own)
    reset_peak(device)
    start = time.perf_counter()
    result = request.method.apply(own, handed, run)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Work(
        result=result,
        handed=handed,
        run=run,
        hooks=hooks,
        seconds=time.perf_counter() - start,
        peak_bytes=peak_bytes(device),
    )


def _handed(request: Request, copied: nn.Module, run: Run) -> ForgetTask:
    """The task as the method sees it: `tune` as holdout, nothing it did not declare."""
    needs, task = request.needs, request.task
    statistics = task.statistics
    if "statistics" in needs and statistics is None and request.head is not None:
        start = time.perf_counter()
        statistics, sums = collect_statistics(
            copied,
            request.head,
            task.rows,
            forget=task.chosen,
            batch_size=run.batch_size,
            device=run.device,
        )
        run.summed(sums)
        run.touched(len(task.rows))
        run.log("statistics_seconds", time.perf_counter() - start)
    seen = task if "retain" in needs else task.alone()
    return seen.having(
        Given(
            holdout=request.split.tune,
            statistics=statistics if "statistics" in needs else None,
            training=task.training if "training" in needs else None,
            views=task.views,
        )
    )
