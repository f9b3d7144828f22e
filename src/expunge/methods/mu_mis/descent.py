"""The descent of MU-Mis: begin, step, check, finish.

`Ground` is what stays the same during one descent and `State` where it stands: a frozen value that
each function takes and gives back changed. The weights themselves are the model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from expunge.data.rows import Rows, parts
from expunge.methods.mu_mis.sensitivity import (
    Loss,
    SensitivitySums,
    draw_irrelevant,
    relative_step,
    scaled_loss,
    sensitivities,
    sensitivity_gradients,
    summed,
)
from expunge.methods.mu_mis.stop import MOST_REFUSED, End, Observed, fired, lost
from expunge.methods.run import Run
from expunge.task import ForgetTask

if TYPE_CHECKING:
    from expunge.methods.mu_mis.method import MuMis

__all__ = [
    "Accepted",
    "Ground",
    "State",
    "accumulated",
    "begin",
    "check",
    "descend",
    "finish",
    "ground_of",
    "look",
    "loss_of",
    "step",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """What stays the same during one descent; `other` are the irrelevant classes of the panel."""

    method: MuMis
    model: nn.Module
    task: ForgetTask
    run: Run
    parameters: Sequence[nn.Parameter]
    panel: Rows
    other: Int[Tensor, " panel"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Accepted:
    """The weights to return if nothing better comes, and after how many steps they stood."""

    steps: int
    weights: Sequence[Tensor]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """Where a descent stands.

    `queue` are positions of forget rows drawn and not yet used, `looks` everything seen so far, the
    start first, `refused` the looks refused in a row.
    """

    steps: int
    queue: Int[Tensor, " waiting"]
    looks: tuple[Observed, ...]
    accepted: Accepted
    refused: int = 0
    ended: End | None = None


def descend(method: MuMis, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
    """Descend until a stop rule fires; return the model in its last accepted state."""
    ground = ground_of(method, model, task, run)
    state = begin(ground)
    for number in range(1, method.most_steps + 1):
        state = step(ground, state)
        due = number % method.check_every == 0 or number == method.most_steps
        if state.ended is None and due:
            state = check(ground, state)
        run.report("mu-mis", number, method.most_steps)
        if state.ended is not None:
            break
    finish(ground, state)
    return model


def ground_of(method: MuMis, model: nn.Module, task: ForgetTask, run: Run) -> Ground:
    """Open the weights to gradients; draw the panel and its irrelevant classes."""
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    order = torch.randperm(len(task.forget), generator=run.generator)
    panel = task.forget.select(order[: method.panel].sort().values)
    return Ground(
        method=method,
        model=model,
        task=task,
        run=run,
        parameters=parameters,
        panel=panel,
        other=_drawn(panel, run),
    )


def begin(ground: Ground) -> State:
    """The state before the first step; the weights as given are the first accepted ones."""
    first = look(ground, 0)
    if ground.method.stop == "validated" and first.tune_others is None:
        ground.run.note("no holdout: the forget-only rule or the published rule stops the descent")
    return State(
        steps=0,
        queue=torch.empty(0, dtype=torch.int64),
        looks=(first,),
        accepted=Accepted(steps=0, weights=_weights(ground)),
    )


def step(ground: Ground, state: State) -> State:
    """One step of descent on the next batch; not taken, and the end, where it is not finite."""
    method, run = ground.method, ground.run
    chosen, queue = _next(ground, state.queue)
    rows = ground.task.forget.select(chosen)
    sums = accumulated(ground, rows, _drawn(rows, run))
    loss = loss_of(ground, state)
    with torch.no_grad():
        gradient = loss.gradient(sums)
        if not _finite(gradient) or not math.isfinite(loss.of(sums)):
            return replace(state, queue=queue, ended=End.GRADIENT)
        if method.rule == "plain":
            for p, g in zip(ground.parameters, gradient, strict=True):
                p.sub_(g, alpha=method.step)
        else:
            moves = relative_step(
                ground.parameters, gradient, share=method.step, left=loss.left(sums)
            )
            for p, move in zip(ground.parameters, moves, strict=True):
                p.add_(move)
    run.stepped()
    return replace(state, steps=state.steps + 1, queue=queue)


def check(ground: Ground, state: State) -> State:
    """Look, accept or refuse the weights, and end where a stop rule fires."""
    seen = look(ground, state.steps)
    if not math.isfinite(seen.target) or not math.isfinite(seen.irrelevant):
        return replace(state, ended=End.SENSITIVITY)
    looks, holdout = (*state.looks, seen), ground.task.holdout
    if holdout is not None and lost(ground.method, looks, len(holdout)):
        refused = state.refused + 1
        ended = End.REFUSED if refused == MOST_REFUSED else None
        return replace(state, looks=looks, refused=refused, ended=ended)
    return replace(
        state,
        looks=looks,
        accepted=Accepted(steps=state.steps, weights=_weights(ground)),
        refused=0,
        ended=fired(ground.method, looks),
    )


def finish(ground: Ground, state: State) -> None:
    """Roll back to the last accepted weights and write down which rule fired."""
    with torch.no_grad():
        for parameter, weights in zip(ground.parameters, state.accepted.weights, strict=True):
            parameter.copy_(weights)
    ended = state.ended or End.MOST_STEPS
    words = ended.value.format(most_steps=ground.method.most_steps)
    back = state.steps - state.accepted.steps
    ground.run.note(
        f"stopped by {words} after {state.steps} steps"
        + (f"; rolled back {back} to the last accepted state" if back else "")
    )


def loss_of(ground: Ground, state: State) -> Loss:
    """The loss that is descended: in units of, and capped by, what the first look saw."""
    first = state.looks[0]
    return scaled_loss(first.target, first.irrelevant, cap=ground.method.cap)


def accumulated(ground: Ground, rows: Rows, other: Int[Tensor, " rows"]) -> SensitivitySums:
    """Both squared norms and their weight gradients, summed over `rows` chunk by chunk."""
    chunks = (
        sensitivity_gradients(ground.model, inputs, labels, theirs, ground.parameters)
        for inputs, labels, theirs in _chunks(ground, rows, other)
    )
    return summed(chunks, ground.parameters)


def look(ground: Ground, steps: int) -> Observed:
    """Both sensitivities of the panel and the accuracies, after so many steps; logged."""
    target = irrelevant = 0.0
    hits = 0
    for inputs, labels, theirs in _chunks(ground, ground.panel, ground.other):
        own, rest, logits = sensitivities(ground.model, inputs, labels, theirs)
        target += float(own.sum())
        irrelevant += float(rest.sum())
        hits += int((logits.argmax(1) == labels).sum())
    n = len(ground.panel)
    tune_forget, tune_others = _tuned(ground, steps)
    seen = Observed(
        target=target / n,
        irrelevant=irrelevant / n,
        forget=100.0 * hits / n,
        tune_forget=tune_forget,
        tune_others=tune_others,
    )
    run = ground.run
    run.log("target_sensitivity", seen.target)
    run.log("irrelevant_sensitivity", seen.irrelevant)
    run.log("panel_forget_accuracy", seen.forget)
    if tune_others is not None:
        run.log("tune_others_accuracy", tune_others)
    return seen


def _tuned(ground: Ground, steps: int) -> tuple[float | None, float | None]:
    """Accuracy on the tune rows of the class and on the others, where the rule asks for them."""
    holdout = ground.task.holdout
    if holdout is None or ground.method.stop != "validated":
        return None, None
    logits = ground.run.logits(ground.model, holdout)
    gone = torch.tensor(sorted(ground.task.gone))
    own = torch.isin(holdout.labels, gone)
    if bool(own.all()):
        return None, None
    if steps == 0:  # the original, with the class masked
        logits[:, gone] = -torch.inf
    right = (logits.argmax(1) == holdout.labels).double()
    others = 100.0 * float(right[~own].mean())
    return 100.0 * float(right[own].mean()) if steps and bool(own.any()) else None, others


def _next(ground: Ground, queue: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the next batch and what waits after it; every row once before any twice."""
    n = len(ground.task.forget)
    size = min(ground.method.batch_size or n, n)
    if len(queue) < size:
        queue = torch.cat([queue, torch.randperm(n, generator=ground.run.generator)])
    return queue[:size], queue[size:]


def _drawn(rows: Rows, run: Run) -> Tensor:
    """An irrelevant class a row, among the classes that stay."""
    kept = torch.tensor(run.kept, dtype=torch.int64)
    return draw_irrelevant(rows.labels, kept, run.generator)


def _chunks(ground: Ground, rows: Rows, other: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs, labels and irrelevant classes of at most `chunk_size` rows, on the run's device."""
    size = ground.method.chunk_size
    chunks = zip(ground.run.batches(rows, size=size), parts(other, size), strict=True)
    for (inputs, labels), theirs in chunks:
        assert isinstance(inputs, Tensor)
        yield inputs, labels, theirs.to(labels.device)


def _weights(ground: Ground) -> list[Tensor]:
    return [p.detach().clone() for p in ground.parameters]


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)
