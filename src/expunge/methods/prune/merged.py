"""The merged form tried: an edit of the head alone, what it proves, what it costs on tune rows."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.certificate.bounds import logits_enclosure
from expunge.errors import MethodError
from expunge.methods.prune.evidence import Edit
from expunge.methods.prune.merging import Asked, Held, merge
from expunge.methods.prune.notes import say_gated_because, say_merged
from expunge.methods.prune.scene import Scene
from expunge.methods.prune.shifts import Claimed, bound_of
from expunge.methods.prune.targets import Targets
from expunge.methods.run import Run
from expunge.network.heads import Head, head_matrix, set_head_matrix

__all__ = ["merged_edit"]

_FLOOR = 0.5
"""Retained margins stay at least this, or what they were, in logits."""

_MOST_LOST = 0.1
"""Points of tune accuracy that the merged form may cost with form "auto"."""

_LONGER = 60
"""How many times as long it is tried where it was asked for."""

_TRYING = "trying an edit of the head alone"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    """An edited head, the claims that hold, and what it cost on tune rows.

    `tune_change` is the change of tune accuracy in points. `finished` is False where the time ran
    out. `earlier_hold` says whether every record of earlier requests keeps its claim.
    """

    layer: nn.Linear
    claims: Mapping[int, Claimed]
    tune_change: float
    finished: bool
    earlier_hold: bool
    seconds: float


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Wanted:
    """Margins to reach: of the records at `chosen`, then of the records of earlier requests."""

    chosen: list[int]
    rows: Float[Tensor, "records features"]
    labels: Int[Tensor, " records"]
    targets: Float[Tensor, "records classes"]
    bounds: Sequence[float]


def merged_edit(
    scene: Scene,
    targets: Targets,
    run: Run,
    *,
    form: Literal["auto", "gated", "merged"],
    tolerance: float,
    seconds: float,
) -> Edit | None:
    """The merged form where it was asked for, or where it costs next to nothing; says why.

    With form "auto" it is tried for `seconds`, else for 60 times as long.
    """
    n, copies = len(scene.forget.ids), len(scene.twins.retained)
    if form == "gated":
        return None
    if form == "auto" and (reason := _why_not_tried(scene, targets.spec)):
        say_gated_because(run, reason)
        return None
    if copies == n:
        raise MethodError(
            f"Expected some record that is not among what stays, got {n} that are identical to "
            "retained rows. Forget these rows too, or use retrain."
        )
    allowed = seconds if form == "auto" else _LONGER * seconds
    run.report(_TRYING, 0, 1)
    found = _attempt(scene, targets, tolerance=float(tolerance), seconds=float(allowed))
    run.report(_TRYING, 1, 1)
    run.log("merge_seconds", found.seconds)
    run.log("merge_tune_change", found.tune_change)
    fits, words = len(found.claims), _in_words(found, n, allowed)
    holds = fits > 0 and found.finished and found.earlier_hold
    if holds and (form == "merged" or (fits == n and found.tune_change >= -_MOST_LOST)):
        say_merged(run, words, records=n, claims=fits, copies=copies)
        return Edit(
            form="merged",
            layer=found.layer,
            scene=scene.from_features(),
            targets=targets,
            claims=found.claims,
        )
    if form == "merged":
        more = "" if found.finished else ", or more `merge_seconds`"
        raise MethodError(
            f"Expected an edit of the head alone that serves the records, but {words}. "
            f'Use `form = "gated"`, or fewer records{more}.'
        )
    say_gated_because(run, f"in the merged form {words}")
    return None


def _why_not_tried(scene: Scene, spec: Literal["unseen", "mispredict"]) -> str:
    """Why form "auto" does not even try the merged form; "" where it does."""
    records, copies = len(scene.forget.ids), len(scene.twins.retained)
    if spec == "mispredict":
        return "a forced error is offered with gates only"
    if scene.head.kind == "gated":
        return "earlier requests left gates"
    if records > scene.head.features // 4:
        return f"more records than a quarter of the {scene.head.features} features"
    if copies:
        return f"{copies} of {records} records are identical to retained rows"
    return ""


def _in_words(found: _Attempt, records: int, allowed: float) -> str:
    """What came of it."""
    words = (
        f"{len(found.claims)} of {records} records fit, tune accuracy changes by "
        f"{found.tune_change:+.2f} points"
    )
    if not found.finished:
        words += f", and the solver did not finish within {allowed:g} s"
    if not found.earlier_hold:
        words += ", and records of earlier requests lose their claim"
    return words


def _attempt(scene: Scene, targets: Targets, *, tolerance: float, seconds: float) -> _Attempt:
    """Solve for the least change of the head; the model is not touched."""
    head, wanted = scene.head, _wanted(scene, targets, tolerance)
    retained = _with_one(scene.kept.features)
    found = merge(
        head_matrix(scene.model, head),
        Asked(rows=_with_one(wanted.rows), labels=wanted.labels, targets=wanted.targets),
        Held(rows=retained, labels=scene.kept.labels),
        metric=retained.T @ retained / len(retained),
        free=head.features + head.has_bias,
        tolerance=tolerance,
        floor=_FLOOR,
        seconds=seconds,
    )
    layer = _with_matrix(scene.head.of(scene.model), head, found.matrix)
    holds = _margins_hold(scene, layer, wanted)
    tune, n = scene.tune, len(wanted.chosen)
    with torch.no_grad():
        logits = layer(tune.features.to(layer.weight)).cpu()
    change = (logits.argmax(1) == tune.labels).double().mean() - (
        (tune.logits.argmax(1) == tune.labels).double().mean()
    )
    return _Attempt(
        layer=layer,
        claims={
            i: Claimed("margin", tolerance)
            for i, held in zip(wanted.chosen, holds[:n], strict=True)
            if held
        },
        tune_change=100.0 * float(change),
        finished=found.finished,
        earlier_hold=all(holds[n:]),
        seconds=found.seconds,
    )


def _wanted(scene: Scene, targets: Targets, tolerance: float) -> _Wanted:
    """All records but those that are also among what stays, and those of earlier requests."""
    forget = scene.forget
    chosen = [i for i in range(len(forget.ids)) if i not in scene.twins.retained]
    earlier = () if scene.past is None else scene.past.records
    past = [r for r in earlier if r.target is not None]
    rows = (torch.from_numpy(r.row)[None] for r in past)
    goals = (torch.from_numpy(np.asarray(r.target))[None] for r in past)
    return _Wanted(
        chosen=chosen,
        rows=torch.cat([forget.features[chosen], *rows]),
        labels=torch.cat(
            [forget.labels[chosen], torch.tensor([r.label for r in past], dtype=torch.int64)]
        ),
        targets=torch.cat([targets.logits[chosen], *goals]),
        bounds=[tolerance] * len(chosen) + [r.tolerance for r in past],
    )


def _with_one(features: Float[Tensor, "rows features"]) -> Float[Tensor, "rows columns"]:
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)


def _with_matrix(old: nn.Linear, head: Head, matrix: Tensor) -> nn.Linear:
    """A copy of the head with A = [W, b] in place of its own."""
    layer = copy.deepcopy(old)
    set_head_matrix(layer, dataclasses.replace(head, name=""), matrix)
    return layer


def _margins_hold(scene: Scene, layer: nn.Linear, wanted: _Wanted) -> list[bool]:
    """Whether each runner-up margin lies within its bound of the target's, in any float32 order."""
    network = scene.from_features().network(layer)
    values, errors = logits_enclosure(network, wanted.rows.numpy())
    return [
        bound_of(
            Claimed("margin", bound),
            int(wanted.labels[i]),
            wanted.targets[i].numpy(),
            values[i],
            errors[i],
        )
        == bound
        for i, bound in enumerate(wanted.bounds)
    ]
