"""What PRUNE proves and says beside its patch: claims from the input, earlier claims, notes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from expunge.certificate.bounds import enclose, shut_rows
from expunge.certificate.facts import Evidence, Layer
from expunge.certificate.layers import Network
from expunge.errors import MethodError, UnsupportedError
from expunge.functional.membership import auc
from expunge.methods.prune.evidence import Seen, network_as_is, network_with, through
from expunge.methods.prune.gates import gate_values, nearness
from expunge.methods.prune.shifts import Patch, proven_again
from expunge.methods.run import Run
from expunge.network.heads import Head

__all__ = ["BY_DESIGN", "from_input", "none_separable", "refuse_reduced", "still_proven", "tell"]

BY_DESIGN = (
    "spec: mispredict misses the aim `unseen` by design: a retrained model gets most of the "
    "records right, and a forced error is itself a leak"
)
_BLOCK = 8192
_SAME = 1e-5
"""Relative to the largest logit: how far a model may be from its layers, evaluated exactly."""


def refuse_reduced(model: nn.Module, head: Head, mine: Seen) -> None:
    """Raise UnsupportedError where the logits are not those of a float32 head."""
    found = enclose(network_as_is(model, head), mine.features.numpy())
    far = np.abs(mine.logits.numpy() - found.logits) > found.logit_errors
    if bool(far.any()):
        raise UnsupportedError(
            "Expected logits that a float32 head gives, got some that differ by more than rounding "
            "(autocast in the model, or TF32?). Switch reduced precision off for a certificate."
        )


def from_input(
    patch: Patch,
    solve: Callable[..., Patch],
    model: nn.Module,
    head: Head,
    layers: Sequence[Layer],
    mine: Seen,
    kept: Seen,
    run: Run,
) -> Patch | None:
    """The same patch with claims that start at the input of a plain MLP, if they all hold there.

    The bound for float32 in any order widens with every layer; where it closes over a gate, the
    claim starts at the features instead. A witness speaks about features, too.
    """
    width = mine.start.shape[1]
    network = partial(network_with, model, head, layers, width)
    past = run.evidence.records if run.evidence is not None else ()
    starts = "the claim starts at the features: "
    if patch.entangled:
        run.note(f"{starts}some record is entangled, and witnesses are about features")
        return None
    if any(r.row.shape != (width,) for r in past):
        run.note(f"{starts}the records of earlier requests are known by their features")
        return None
    if not all(_is_its_layers(model, head, layers, rows) for rows in (mine, kept)):
        run.note(f"{starts}on some row the model is not what its layers give one after another")
        return None
    deployed = network(patch.weight, patch.bias, patch.shift)
    again = proven_again(deployed, past)
    same = again is not None and [r.tolerance for r in again] == [r.tolerance for r in past]
    if same and bool(shut_rows(deployed, kept.start).all()):
        found = solve(rows=mine.start, network=network)
        if len(found.claimed) == len(patch.claimed):  # so no gate went, and the shifts are the same
            return found
    run.note(f"{starts}from the input the rounding bound is too wide")
    return None


def _is_its_layers(model: nn.Module, head: Head, layers: Sequence[Layer], rows: Seen) -> bool:
    """Whether the logits read from the model are those of its layers, one after another."""
    last = copy.deepcopy(head.of(model)).cpu().double()
    far = _SAME * rows.logits.abs().max()
    blocks = zip(torch.from_numpy(rows.start).split(_BLOCK), rows.logits.split(_BLOCK), strict=True)
    with torch.no_grad():
        for start, logits in blocks:
            value = last(through(model, layers, start.double()))
            if not bool(((value - logits).abs() <= far).all()):
                return False
    return True


def still_proven(run: Run, network: Network, kept: Seen) -> Evidence | None:
    """The evidence so far, proven again on the new weights; raises MethodError where it fails."""
    opened = int((~shut_rows(network, kept.start)).sum())
    if opened:
        raise MethodError(
            f"Expected every gate to be shut on what stays, but {opened} rows open a gate of an "
            "earlier request. Rows like those forgotten were added to the training data since: "
            "forget them too, or retrain."
        )
    if run.evidence is None:
        return None
    again = proven_again(network, run.evidence.records)
    if again is None:
        raise MethodError(
            "Expected the records of earlier requests to keep their claims, but some would lose "
            "it. Forget these records in a run from the original model, together with the earlier "
            "ones."
        )
    wider = sum(
        new.tolerance > old.tolerance for new, old in zip(again, run.evidence.records, strict=True)
    )
    if wider:
        run.note(f"{wider} records of earlier requests claim a wider bound than before")
    return dataclasses.replace(run.evidence, records=tuple(again))


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


def tell(spec: str, patch: Patch, mine: Seen, kept: Seen, tune: Seen, run: Run) -> None:
    """Everything a reader of the record must know: form, entangled records, what the gates leak."""
    run.note(
        "form: gated, one gate a record. It supports the claim `outputs` and never `file`: who "
        "holds the file can take the gates off, and can tell with them who was forgotten"
    )
    if spec == "mispredict":
        run.note(BY_DESIGN)
    if patch.entangled:
        reasons = ", ".join(sorted({e.reason for e in patch.entangled}))
        run.note(
            f"{len(patch.entangled)} of {len(mine.features)} records are entangled ({reasons}): no "
            "gate separates them from what stays, and nothing was done for them"
        )
    run.log("gates", len(patch.bias))
    run.log("by_linear_program", patch.by_program)
    run.log("linear_program_seconds", patch.program_seconds)
    run.log("entangled", len(patch.entangled))
    if len(tune.features):
        _tell_leaks(patch, mine, kept, tune, run)


def _tell_leaks(patch: Patch, mine: Seen, kept: Seen, tune: Seen, run: Run) -> None:
    """What the gates tell of the records that have one, beside the tune rows."""
    opened = gate_values(patch.weight, patch.bias, tune.features)
    openings = float((opened > 0).double().sum(1).mean())
    chance = len(patch.bias) / (len(kept.features) + 1)
    run.log("openings_per_unseen_row", openings)
    run.log("openings_by_chance", chance)
    # every record lies at 1.5 of its own gate, before the clip: who has the file looks for that
    members = mine.features[sorted(patch.claimed)]
    scores = (nearness(patch.weight, patch.bias, rows) for rows in (members, tune.features))
    told = auc(*scores)
    run.log("patch_membership_auc", told)
    run.note(
        f"what the gates tell whoever holds the file: records that have one ({len(members)}) from "
        f"tune rows with an AUC of {told:.3f}; a tune row, never seen by the model, opens "
        f"{openings:.4f} gates on average (chance: {chance:.4f})"
    )
