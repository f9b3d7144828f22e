"""Single records: the story of a patch, in four words. Scene, targets, edit, evidence."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from expunge.methods.prune.evidence import Edit, Origin, record_evidence
from expunge.methods.prune.fitting import fit_gates
from expunge.methods.prune.leaving import refuse_entangled, refuse_unserved
from expunge.methods.prune.merged import merged_edit
from expunge.methods.prune.notes import say_from_features, say_patched, say_wider
from expunge.methods.prune.proofs import (
    from_input,
    none_separable,
    refuse_reduced,
    still_proven,
)
from expunge.methods.prune.scene import Scene, read_scene
from expunge.methods.prune.shifts import Patch, solve_shifts
from expunge.methods.prune.targets import Targets, forced_targets, unseen_targets
from expunge.methods.run import Run
from expunge.patches.heads import replaced
from expunge.task import ForgetTask

if TYPE_CHECKING:
    from expunge.methods.prune.method import Prune

__all__ = ["patched"]


def patched(model: nn.Module, task: ForgetTask, run: Run, method: Prune) -> nn.Module:
    """Patch single records: gates, or an edit of the head alone where that fits."""
    scene = read_scene(model, task, run)
    refuse_reduced(scene)
    began = time.perf_counter()
    targets = _targets(scene, method, run.generator)
    edit = merged_edit(
        scene,
        targets,
        run,
        form=method.form,
        tolerance=method.tolerance,
        seconds=method.merge_seconds,
    ) or _gated_edit(scene, targets, method, run)
    if method.entangled == "error":
        refuse_entangled(edit)
    evidence = record_evidence(edit, _origin(run, method, edit))
    run.log("patch_seconds", time.perf_counter() - began)
    run.prove(evidence)
    run.shape("same" if edit.form == "merged" else "wraps")
    refuse_unserved(run, edit)
    say_patched(run, edit)
    return replaced(model, scene.head.name, edit.layer)


def _targets(scene: Scene, method: Prune, generator: torch.Generator) -> Targets:
    """What each record shall get; equal records get the same."""
    labels, tune = scene.forget.labels, scene.tune
    chosen = (
        forced_targets(scene.forget.logits, labels, margin=method.margin)
        if method.spec == "mispredict"
        else unseen_targets(
            labels,
            tune.logits,
            tune.labels,
            jitter=method.jitter,
            bound=method.tolerance,
            generator=generator,
        )
    )
    return chosen.shared(scene.twins.groups)


def _gated_edit(scene: Scene, targets: Targets, method: Prune, run: Run) -> Edit:
    """Gates with the shifts behind them; claims start at the input where that is proven."""
    fitted = fit_gates(
        scene.forget.features,
        scene.forget.labels,
        scene.kept.features,
        scene.past_features(),
        scene.twins,
        ridge=method.ridge,
        nearest=method.nearest,
        report=run.report,
    )
    asked, near = targets.shared(fitted.served), scene.from_features()
    patch = solve_shifts(fitted, near, asked)
    if not patch.claims:
        raise none_separable(patch)
    deep = from_input(scene, fitted, patch, asked) if scene.layers else ""
    if isinstance(deep, Patch):
        return _edit(scene, asked, deep)
    if deep:
        say_from_features(run, deep)
    proven = still_proven(near, patch)
    say_wider(run, near.past, proven.past)
    return _edit(proven, asked, patch)


def _edit(scene: Scene, targets: Targets, patch: Patch) -> Edit:
    return Edit(
        form="gated",
        layer=patch.on(scene),
        scene=scene,
        targets=targets,
        claims=patch.claims,
        patch=patch,
    )


def _origin(run: Run, method: Prune, edit: Edit) -> Origin:
    settings = dataclasses.asdict(method) | {"spec": edit.targets.spec, "form": edit.form}
    return Origin(
        seed=run.seed,
        predecessor=run.before.predecessor,
        settings={"name": method.info.name, **settings},
    )
