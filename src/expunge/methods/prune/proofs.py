"""What PRUNE proves beside its patch: float32 logits, claims from the input, earlier claims."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
from torch import nn

from expunge.certificate.bounds import logits_enclosure, shut_rows
from expunge.errors import MethodError, UnsupportedError
from expunge.methods.prune.fitting import Fitted
from expunge.methods.prune.scene import Scene, Seen, through
from expunge.methods.prune.shifts import Patch, proven_again, solve_shifts
from expunge.methods.prune.targets import Targets

__all__ = ["from_input", "none_separable", "refuse_reduced", "still_proven"]

_BLOCK = 8192
_SAME = 1e-5
"""Relative to the largest logit: how far a model may be from its layers, evaluated exactly."""


def refuse_reduced(scene: Scene) -> None:
    """Raise UnsupportedError where the logits are not those of a float32 head."""
    near, rows = scene.from_features(), scene.forget
    network = near.network(scene.head.of(scene.model))
    values, errors = logits_enclosure(network, rows.features.numpy())
    far = np.abs(rows.logits.numpy() - values) > errors
    if bool(far.any()):
        raise UnsupportedError(
            "Expected logits that a float32 head gives, got some that differ by more than rounding "
            "(autocast in the model, or TF32?). Switch reduced precision off for a certificate."
        )


def from_input(scene: Scene, fitted: Fitted, patch: Patch, targets: Targets) -> Patch | str:
    """The same patch with claims that start at the input of a plain MLP, or why they do not.

    The bound for float32 in any order widens with every layer; where it closes over a gate, the
    claim starts at the features instead. A witness speaks about features, too.
    """
    past = () if scene.past is None else scene.past.records
    if patch.entangled:
        return "some record is entangled, and witnesses are about features"
    if any(r.row.shape != scene.forget.start.shape[1:] for r in past):
        return "the records of earlier requests are known by their features"
    if not all(_is_its_layers(scene, rows) for rows in (scene.forget, scene.kept)):
        return "on some row the model is not what its layers give one after another"
    deployed = scene.network(patch.on(scene))
    again = proven_again(deployed, past)
    same = again is not None and [r.tolerance for r in again] == [r.tolerance for r in past]
    if same and bool(shut_rows(deployed, scene.kept.start).all()):
        found = solve_shifts(fitted, scene, targets)
        if len(found.claims) == len(patch.claims):  # so no gate went, and the shifts are the same
            return found
    return "from the input the rounding bound is too wide"


def _is_its_layers(scene: Scene, rows: Seen) -> bool:
    """Whether the logits read from the model are those of its layers, one after another."""
    last: nn.Module = copy.deepcopy(scene.head.of(scene.model)).cpu().double()
    far = _SAME * rows.logits.abs().max()
    blocks = zip(torch.from_numpy(rows.start).split(_BLOCK), rows.logits.split(_BLOCK), strict=True)
    with torch.no_grad():
        for start, logits in blocks:
            value = last(through(scene.model, scene.layers, start.double()))
            if not bool(((value - logits).abs() <= far).all()):
                return False
    return True


def still_proven(scene: Scene, patch: Patch) -> Scene:
    """The scene with its earlier evidence proven again on the new head; MethodError if it fails."""
    deployed = scene.network(patch.on(scene))
    opened = int((~shut_rows(deployed, scene.kept.start)).sum())
    if opened:
        raise MethodError(
            f"Expected every gate to be shut on what stays, but {opened} rows open a gate of an "
            "earlier request. Rows like those forgotten were added to the training data since, or "
            "are records that an earlier request refused: forget them too, or retrain."
        )
    if scene.past is None:
        return scene
    again = proven_again(deployed, scene.past.records)
    if again is None:
        raise MethodError(
            "Expected the records of earlier requests to keep their claims, but some would lose "
            "it. Forget these records in a run from the original model, together with the earlier "
            "ones."
        )
    return dataclasses.replace(scene, past=dataclasses.replace(scene.past, records=tuple(again)))


def none_separable(patch: Patch) -> MethodError:
    """The error where every record is entangled, with what to do about the reasons."""
    reasons = {e.reason for e in patch.entangled}
    advice = (
        "What separates them is smaller than the rounding of the head in float32, as with very "
        "large logits: use retrain."
        if reasons == {"rounding"}
        else "Forget the retained rows that they equal or lie between too, or use retrain."
    )
    return MethodError(
        "Expected some record that a gate can separate from what stays, got "
        f"{len(patch.entangled)} entangled ones ({', '.join(sorted(reasons))}). {advice}"
    )
