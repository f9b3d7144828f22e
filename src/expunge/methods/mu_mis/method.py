"""MU-Mis: forget without any remaining data, by lowering the input sensitivity of the true logit.

Training on a record raises the sensitivity ‖∇ₓf_c‖ of its own logit to the input above that of
other logits; MU-Mis pulls them together again, on the forget records alone, by gradient descent on
the weights through a double backward pass.

Equation: min over w of mean_x (‖∇ₓf_c(x; w)‖² − ‖∇ₓf_c'(x; w)‖²), c' ≠ c random a sample.
Reference: X. Cheng et al., "Remaining-data-free Machine Unlearning by Suppressing Sample
Contribution", ICLR 2026, arXiv 2402.15109.
What we do differently. The loss is divided by the initial mean ‖∇ₓf_c‖² (positive, floored), and
each step is sized so that, to first order, it removes the share `step` of the target sensitivity
that is left, with each tensor's gradient scaled by that tensor's squared norm: one setting serves
nets whose gradients differ by orders of magnitude, where a fixed rate ran into NaN on one and did
nothing on another (`rule="plain"` is the published descent). The second term is unbounded below;
it is capped at `cap` times its start. c' is drawn stratified, among classes that stay. Norm and
dropout layers are frozen (in train mode the same steps wreck the model). A validated stop on
`tune` rolls back to the last accepted state; the published stop needs no holdout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import InputError, UnsupportedError
from expunge.methods.base import Method
from expunge.methods.mu_mis.sensitivity import (
    draw_irrelevant,
    sensitivities,
    sensitivity_gradients,
)
from expunge.methods.run import Run
from expunge.records import MethodInfo, Paper
from expunge.task import ForgetTask

__all__ = ["MuMis"]

_FLOOR = 1e-12


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MuMis(Method):
    """Lower the true logit's input sensitivity against the others', on the forget set alone.

    `rule`: `relative` (ours; `step` is the share of the target sensitivity removed a step) or
    `plain` (gradient descent with learning rate `step` on the scaled loss). `cap`: the irrelevant
    term pays until this multiple of its start (None: no cap, as published). `stop`: `validated`
    ends when at most `forget_accuracy` percent of a panel of forget rows, and of the class's
    `tune` rows, are recognised, and accepts no state whose other `tune` rows lost more than
    `tolerance` points (and two standard errors) against the masked original; `published` uses
    the published rule with threshold `delta` alone. Without a holdout either rule may end it.
    `batch_size` None uses the whole forget set each step; `chunk_size` rows are in memory at once.
    """

    rule: Literal["relative", "plain"] = "relative"
    step: float = 0.15
    cap: float | None = 1.0
    stop: Literal["validated", "published"] = "validated"
    delta: float = 1.1
    batch_size: int | None = 64
    chunk_size: int = 64
    most_steps: int = 150
    check_every: int = 5
    panel: int = 500
    forget_accuracy: float = 1.5
    tolerance: float = 1.0

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mu-mis",
        title="MU-Mis",
        summary="lower the input sensitivity of the true logit; needs forget data only",
        paper=Paper(
            title="Remaining-data-free Machine Unlearning by Suppressing Sample Contribution",
            authors="X. Cheng, Z. Huang, W. Zhou, Z. He, R. Yang, Y. Wu, X. Huang",
            venue="ICLR 2026",
            link="https://arxiv.org/abs/2402.15109",
        ),
        needs=frozenset({"forget"}),
        aims=frozenset({"absent"}),
        scopes=frozenset({"classes"}),
        claims=("outputs", "features"),
        stochastic=True,
        cost="about 3 training steps a step, tens of steps on batches of the forget set",
    )

    def apply(self, model: nn.Module, task: ForgetTask, run: Run) -> nn.Module:
        """Descend until a stop rule fires; return the last accepted state."""
        _check(self)
        descent = _Descent(self, model, task, run)
        for number in range(1, self.most_steps + 1):
            fired = descent.step()
            if fired is None and (number % self.check_every == 0 or number == self.most_steps):
                fired = descent.check()
            run.report("mu-mis", number, self.most_steps)
            if fired is not None:
                break
        else:
            fired = f"the cap of {self.most_steps} steps"
        descent.finish(fired)
        return model


def _check(method: MuMis) -> None:
    for name, allowed in (("rule", ("relative", "plain")), ("stop", ("validated", "published"))):
        if getattr(method, name) not in allowed:
            raise InputError(
                f"Expected `{name}` to be one of {', '.join(allowed)}, got "
                f"{getattr(method, name)!r}."
            )
    for name in ("step", "delta", "chunk_size", "most_steps", "check_every", "panel"):
        if not getattr(method, name) > 0:
            raise InputError(f"Expected `{name}` above 0, got {getattr(method, name)}.")
    if method.batch_size is not None and not method.batch_size > 0:
        raise InputError(f"Expected `batch_size` above 0 or None, got {method.batch_size}.")


@final
@dataclass(frozen=True, slots=True)
class _Seen:
    """What one check saw, on the panel of forget rows and on `tune`."""

    steps: int
    target: float
    irrelevant: float
    forget: float
    tune_forget: float | None
    tune_others: float | None


class _Descent:
    """The state of one descent: the panel, the starts, the last accepted weights."""

    def __init__(self, method: MuMis, model: nn.Module, task: ForgetTask, run: Run) -> None:
        self.method, self.model, self.task, self.run = method, model, task, run
        self.kept = torch.tensor(run.kept, dtype=torch.int64)
        self.parameters = [p for p in model.parameters() if p.is_floating_point()]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        rows = task.forget
        probe, _ = rows.batch(torch.zeros(1, dtype=torch.int64))
        if not isinstance(probe, Tensor) or not probe.is_floating_point():
            raise UnsupportedError(
                "Expected inputs in one floating tensor for mu-mis, got "
                f"{probe.dtype if isinstance(probe, Tensor) else 'named tensors'}: the gradient "
                "with respect to the input must exist. Wrap the model so that it takes floats."
            )
        order = torch.randperm(len(rows), generator=run.generator)
        self.panel = rows.select(order[: method.panel].sort().values)
        self.panel_other = draw_irrelevant(self.panel.labels, self.kept, run.generator)
        self.queue = torch.empty(0, dtype=torch.int64)
        self.number = 0
        first = self._look()
        self.scale = max(first.target, _FLOOR)
        self.cap = math.inf if method.cap is None else method.cap * first.irrelevant
        self.history = [first]
        self.accepted = self._weights()
        self.accepted_seen = first
        self.refused = 0
        if method.stop == "validated" and first.tune_others is None:
            run.note("no holdout: the forget-only rule or the published rule stops the descent")

    def _weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def _draw(self) -> Rows:
        size = self.method.batch_size or len(self.task.forget)
        size = min(size, len(self.task.forget))
        if len(self.queue) < size:
            order = torch.randperm(len(self.task.forget), generator=self.run.generator)
            self.queue = torch.cat([self.queue, order])
        chosen, self.queue = self.queue[:size], self.queue[size:]
        return self.task.forget.select(chosen)

    def step(self) -> str | None:
        """One step of descent on one batch; says so if it is not finite."""
        method, rows = self.method, self._draw()
        other = draw_irrelevant(rows.labels, self.kept, self.run.generator)
        to_target, to_other, target, irrelevant = accumulated(
            self.model, rows, other, self.parameters, method.chunk_size, self.run
        )
        n = float(len(rows))
        paid = irrelevant / n <= self.cap
        with torch.no_grad():
            gradient = [
                (t - o if paid else t) / (n * self.scale)
                for t, o in zip(to_target, to_other, strict=True)
            ]
            if not _finite(gradient) or not math.isfinite(target):
                return "a gradient that is not finite"
            self._move(gradient, target / (n * self.scale))
        self.number += 1
        self.run.gradient_steps += 1
        return None

    def _move(self, gradient: Sequence[Tensor], left: float) -> None:
        if self.method.rule == "plain":
            for p, g in zip(self.parameters, gradient, strict=True):
                p.sub_(g, alpha=self.method.step)
            return
        squares = [p.square().sum() for p in self.parameters]
        slope = float(
            sum(float(w * g.square().sum()) for w, g in zip(squares, gradient, strict=True))
        )
        if slope <= 0.0:
            return
        rate = self.method.step * left / slope
        for p, w, g in zip(self.parameters, squares, gradient, strict=True):
            p.sub_(g * (w * rate))

    def _look(self) -> _Seen:
        """Both sensitivities and the accuracies now; the draw of c' on the panel is fixed."""
        target = irrelevant = 0.0
        hits = 0
        gone = torch.tensor(sorted(self.task.gone))
        start = 0
        for inputs, labels in self.run.batches(self.panel, size=self.method.chunk_size):
            assert isinstance(inputs, Tensor)
            other = self.panel_other[start : start + len(labels)].to(labels.device)
            own, theirs, logits = sensitivities(self.model, inputs, labels, other, graph=False)
            target += float(own.sum())
            irrelevant += float(theirs.sum())
            hits += int((logits.argmax(1) == labels).sum())
            start += len(labels)
        n = len(self.panel)
        tune_forget = tune_others = None
        if self.task.holdout is not None and self.method.stop == "validated":
            logits = self.run.logits(self.model, self.task.holdout)
            labels = self.task.holdout.labels
            own_rows = torch.isin(labels, gone)
            if bool((~own_rows).any()):
                if self.number == 0:
                    logits[:, gone] = -torch.inf
                right = (logits.argmax(1) == labels).double()
                tune_others = 100.0 * float(right[~own_rows].mean())
                if self.number and bool(own_rows.any()):
                    tune_forget = 100.0 * float(right[own_rows].mean())
        seen = _Seen(
            self.number, target / n, irrelevant / n, 100.0 * hits / n, tune_forget, tune_others
        )
        self.run.log("target_sensitivity", seen.target)
        self.run.log("irrelevant_sensitivity", seen.irrelevant)
        self.run.log("panel_forget_accuracy", seen.forget)
        if tune_others is not None:
            self.run.log("tune_others_accuracy", tune_others)
        return seen

    def check(self) -> str | None:
        """Look, accept or refuse the state, and say which stop rule fired, if one did."""
        seen = self._look()
        if not math.isfinite(seen.target) or not math.isfinite(seen.irrelevant):
            return "a sensitivity that is not finite"
        self.history.append(seen)
        first = self.history[0]
        if seen.tune_others is None or first.tune_others is None:
            self._accept(seen)
            if self.method.stop == "validated" and seen.forget <= self.method.forget_accuracy:
                return "the forget-only rule"
            return published_stop([s.irrelevant for s in self.history], self.method.delta)
        if seen.tune_others < first.tune_others - self.method.tolerance - self._noise():
            self.refused += 1
            return "three refused states in a row" if self.refused == 3 else None
        self._accept(seen)
        left = max(seen.forget, seen.tune_forget or 0.0)
        return "the validated rule" if left <= self.method.forget_accuracy else None

    def _noise(self) -> float:
        """Two standard errors of the tune accuracy, in points: less is not a loss yet."""
        first = self.history[0].tune_others
        assert first is not None
        assert self.task.holdout is not None
        share = min(max(first / 100.0, 0.01), 0.99)
        return 200.0 * math.sqrt(share * (1 - share) / len(self.task.holdout))

    def _accept(self, seen: _Seen) -> None:
        self.refused = 0
        self.accepted, self.accepted_seen = self._weights(), seen

    def finish(self, fired: str) -> None:
        """Roll back to the last accepted state and write down which rule fired."""
        with torch.no_grad():
            for parameter, weights in zip(self.parameters, self.accepted, strict=True):
                parameter.copy_(weights)
        back = self.number - self.accepted_seen.steps
        self.run.note(
            f"stopped by {fired} after {self.number} steps"
            + (f"; rolled back {back} to the last accepted state" if back else "")
        )


def published_stop(irrelevant: Sequence[float], delta: float) -> str | None:
    """The published rule on mean squares of the irrelevant sensitivity, the latest last.

    It fires when the last has risen above the recorded minimum and its norm is over `delta` of
    its start.
    """
    lowest = min(irrelevant)
    risen = irrelevant[-1] > lowest
    over = math.sqrt(irrelevant[-1] / irrelevant[0]) > delta if irrelevant[0] > 0 else False
    return "the published rule" if risen and over else None


def accumulated(
    model: nn.Module,
    rows: Rows,
    other: Tensor,
    parameters: Sequence[nn.Parameter],
    chunk_size: int,
    run: Run,
) -> tuple[list[Tensor], list[Tensor], float, float]:
    """Sums over `rows` of both gradients and both squared norms, chunk by chunk."""
    to_target = [torch.zeros_like(p) for p in parameters]
    to_other = [torch.zeros_like(p) for p in parameters]
    target = irrelevant = 0.0
    start = 0
    for inputs, labels in run.batches(rows, size=chunk_size):
        assert isinstance(inputs, Tensor)
        theirs = other[start : start + len(labels)].to(labels.device)
        a, b, own, rest = sensitivity_gradients(model, inputs, labels, theirs, parameters)
        for sums, parts in ((to_target, a), (to_other, b)):
            for total, part in zip(sums, parts, strict=True):
                total.add_(part)
        target += float(own.sum())
        irrelevant += float(rest.sum())
        start += len(labels)
    return to_target, to_other, target, irrelevant


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)
