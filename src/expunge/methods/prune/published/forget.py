"""PRUNE as published: redirect the linear regions of the records to forget, until they are wrong.

K-means on the raw inputs of what is still known; the member nearest to each centroid represents its
cluster, the least shift of a random label's logit that makes it wrong is added on the region of
every member; then the whole forget set is looked at again. From the second round on, every record
that is left is patched by itself.

Equation: see `expunge.methods.prune.published.regions`. Reference: PRUNE, arXiv 2505.06520.
What we do differently: every cluster has its own label, never the representative's true one, among
the labels that are allowed; the margin is strict; a shift counts in the patches that already reach
the point; all forget records are looked at after each round, not the leftovers alone; records
that K-means left over get a linearisation of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Int, Shaped
from sklearn.cluster import KMeans
from torch import Tensor, nn

from expunge.errors import DataError, InputError, ModelError
from expunge.methods.prune.mlp import read_mlp, within_1e_5
from expunge.methods.prune.published.regions import redirect, region
from expunge.network.calls import frozen_statistics
from expunge.network.state import device_of
from expunge.patches.regions import RegionPatched, inside

if TYPE_CHECKING:
    from expunge.methods.prune.published.method import PrunePublished

__all__ = ["PublishedReport", "forget_published"]

_BATCH = 512


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedReport:
    """What was done.

    `left` are the positions of records that still get their label, `forced_labels` the label that
    each patch raises, `regions` the number of support networks. `patch_bytes` is what the model
    holds beside its base, `dense_bytes` what the new patches take in the published layout (float32
    A, b).
    """

    rounds: int
    records: int
    left: tuple[int, ...]
    forced_labels: tuple[int, ...]
    regions: int
    patch_bytes: int
    dense_bytes: int

    @property
    def patches(self) -> int:
        """How many patches were added."""
        return len(self.forced_labels)

    @property
    def forgotten(self) -> int:
        """How many records get another label than theirs."""
        return self.records - len(self.left)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """What every patch is made from: the layers, the records, and the labels that may be forced."""

    layers: Sequence[tuple[Tensor, Tensor]]
    points: Tensor
    labels: Tensor
    allowed: tuple[int, ...]


def forget_published(
    model: nn.Module,
    inputs: Shaped[Tensor, "records ..."],
    labels: Int[Tensor, " records"],
    settings: PrunePublished,
    *,
    generator: torch.Generator,
    classes: int,
    allowed: tuple[int, ...],
    report: Callable[[str, int, int], None],
) -> tuple[RegionPatched, PublishedReport]:
    """Patch a ReLU MLP until it gives the share `settings.share` of the records another label.

    A patch raises a random label of `allowed` by the least that makes it lead by `settings.margin`
    at the representative. There the record's label stays beaten whatever other patches reach in,
    unless one raises that very label. Points whose violations of A x ≤ b sum to 1/`sharpness` (ℓ∞)
    or more get no shift.

    A `RegionPatched` model keeps its patches and gets more. Records that are wrong already count as
    forgotten. `report(what, done, total)` is called after each round. `model` is not changed; the
    result holds it as `base`. Raises DataError and InputError for labels or values that do not fit,
    ModelError for a model that is no ReLU MLP.
    """
    _check_data(inputs, labels, classes, allowed)
    base = inside(model)
    known = _Known(
        layers=read_mlp(base, inputs, within_1e_5).matrices(),
        points=inputs.detach().cpu().flatten(1).double(),
        labels=labels.cpu(),
        allowed=allowed,
    )
    patched = _start(model, base, known.layers, classes)
    total = len(known.labels)
    enough, used = math.ceil(settings.share * total - 1e-9), 0
    forced: list[int] = []
    regions = 0
    left = _still_known(patched, inputs, known.labels)
    while total - len(left) < enough and used < settings.rounds:
        for members in left.split(1) if used else _clusters(known, left, settings, generator):
            label = _add_patch(patched, known, members, settings, generator)
            if label is not None:
                forced.append(label)
                regions += len(members)
        used += 1
        left = _still_known(patched, inputs, known.labels)
        report("records forgotten", total - len(left), total)
    units = patched.active.shape[1]
    return patched, PublishedReport(
        rounds=used,
        records=total,
        left=tuple(left.tolist()),
        forced_labels=tuple(forced),
        regions=regions,
        patch_bytes=patched.patch_bytes,
        dense_bytes=4 * (regions * units * (known.points.shape[1] + 1)),
    )


def _add_patch(
    patched: RegionPatched,
    known: _Known,
    members: Int[Tensor, " members"],
    settings: PrunePublished,
    generator: torch.Generator,
) -> int | None:
    """Patch the regions of `members` with the shift of the one nearest to their mean.

    Returns the forced label, or None where an earlier patch of the round has beaten the label here.
    """
    points = known.points[members]
    nearest = int((points - points.mean(0)).square().sum(1).argmin())
    point, label = points[nearest], int(known.labels[members[nearest]])
    here = region(known.layers, point)
    before = patched.correction(point[None].to(patched.shift.device))[0].cpu()
    logits = here.slope @ point + here.offset + before
    if bool((logits - logits[label]).max() >= settings.margin):
        return None
    choices = [c for c in known.allowed if c != label]
    forced = choices[int(torch.randint(len(choices), (1,), generator=generator))]
    found = [region(known.layers, p) for p in points]
    patched.add(
        torch.stack([f.active for f in found]),
        torch.stack([settings.sharpness / f.norms for f in found]),
        redirect(logits, forced, settings.margin),
    )
    return forced


def _clusters(
    known: _Known, left: Tensor, settings: PrunePublished, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """K-means on the rows `left`, at most one cluster a distinct row; its seed is always drawn."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    rows = known.points[left]
    count = min(settings.clusters, len(torch.unique(rows, dim=0)))
    found = KMeans(count, n_init=10, random_state=seed).fit(rows.numpy()).labels_
    groups = (left[torch.from_numpy(found == k)] for k in range(count))
    return tuple(group for group in groups if len(group))


def _still_known(model: nn.Module, inputs: Tensor, labels: Tensor) -> Int[Tensor, " left"]:
    """Positions of the records whose label the model still gives."""
    device = device_of(model)
    with frozen_statistics(model), torch.no_grad():
        answers = [model(part.to(device)).argmax(1).cpu() for part in inputs.split(_BATCH)]
    return (torch.cat(answers) == labels).nonzero().flatten()


def _start(
    model: nn.Module, base: nn.Module, layers: Sequence[tuple[Tensor, Tensor]], classes: int
) -> RegionPatched:
    got = len(layers[-1][0])
    if got != classes:
        raise ModelError(f"Expected {classes} logits, one a class, got {got}. Check `classes`.")
    fresh = RegionPatched(base, layers[:-1], classes).to(device_of(model))
    if not isinstance(model, RegionPatched):
        return fresh
    old, new = model.hidden, fresh.hidden
    if len(old) != len(new) or not all(
        torch.equal(w, v) and torch.equal(b, c) for (w, b), (v, c) in zip(old, new, strict=True)
    ):
        raise ModelError(
            "Expected the hidden layers that the earlier patches were made for, but they have "
            "changed since. Start from the model without patches, and forget all records anew."
        )
    return model.twin(base)


def _check_data(inputs: Tensor, labels: Tensor, classes: int, allowed: tuple[int, ...]) -> None:
    if len(labels) == 0 or len(inputs) != len(labels):
        raise DataError(
            f"Expected one label a record and at least one, got {len(inputs)} records and "
            f"{len(labels)} labels."
        )
    if not inputs.is_floating_point() or not bool(torch.isfinite(inputs).all()):
        raise DataError(
            f"Expected finite floating `inputs`, got {inputs.dtype} or values that are not finite. "
            "Scale and clean them in the data set."
        )
    known = set(labels.unique().tolist())
    if not known | set(allowed) <= set(range(classes)):
        raise DataError(
            f"Expected `labels` and `allowed` in 0..{classes - 1}, got {sorted(known)} and "
            f"{sorted(allowed)}."
        )
    if any(not set(allowed) - {label} for label in known):
        raise InputError(
            f"Expected `allowed` to hold another label for every record, got {sorted(allowed)}. "
            "Keep at least two classes."
        )
