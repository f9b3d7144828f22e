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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from jaxtyping import Int, Shaped
from sklearn.cluster import KMeans
from torch import Tensor, nn

from expunge.errors import DataError, InputError, ModelError
from expunge.methods.prune.published.layers import mlp_layers
from expunge.methods.prune.published.regions import logit_gaps, redirect, region, region_gaps
from expunge.network.calls import frozen_statistics
from expunge.network.state import device_of
from expunge.patches.regions import RegionPatched

__all__ = ["PublishedReport", "forget_published"]

_BATCH = 512


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedReport:
    """What the published mode did.

    `left` are the positions of records that still get their label, `targets` the label of each
    patch, `regions` the number of support networks. `patch_bytes` is what the model holds beside
    its base, `dense_bytes` what the new patches take in the published layout (float32 A, b).
    """

    rounds: int
    records: int
    forgotten: int
    left: tuple[int, ...]
    targets: tuple[int, ...]
    regions: int
    patch_bytes: int
    dense_bytes: int

    @property
    def patches(self) -> int:
        """How many patches were added."""
        return len(self.targets)


def forget_published(
    model: nn.Module,
    inputs: Shaped[Tensor, "records ..."],
    labels: Int[Tensor, " records"],
    *,
    share: float = 1.0,
    clusters: int = 2,
    sharpness: float = 1000.0,
    rounds: int = 10,
    margin: float = 0.1,
    patch: Literal["constant", "region"] = "constant",
    generator: torch.Generator,
    classes: int,
    allowed: tuple[int, ...],
    box: tuple[float, float] | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> tuple[RegionPatched, PublishedReport]:
    """Patch a ReLU MLP until it gives the share `share` of the records another label than theirs.

    A patch raises a random label of `allowed` by the least that makes it lead by `margin`: at the
    representative (`constant`), or on all of its region within `box` (`region`, K − 1 linear
    programs a patch; by default the box spans the smallest to the largest value of `inputs`). There
    the record's label stays beaten whatever other patches reach in, unless one raises that very
    label. Points whose violations of A x ≤ b sum to 1/`sharpness` (ℓ∞) or more get no shift.

    A `RegionPatched` model keeps its patches and gets more. Records that are wrong already count as
    forgotten. `report(what, done, total)` is called after each round. `model` is not changed; the
    result holds it as `base`. Raises InputError for settings without a meaning, DataError for
    labels or values that do not fit, ModelError for a model that is no ReLU MLP.
    """
    _check(share, clusters, sharpness, rounds, margin, patch)
    _check_data(inputs, labels, classes, allowed)
    flat, truth = inputs.detach().cpu().flatten(1).double(), labels.cpu()
    spans = (float(flat.min()), float(flat.max()))
    low, high = box or spans
    if not low <= spans[0] <= spans[1] <= high:
        raise InputError(f"Expected `box` to hold every record ({spans}), got {box}.")
    base = model.base if isinstance(model, RegionPatched) else model
    layers = mlp_layers(base, inputs)
    builder = _Builder(
        _start(model, base, layers, classes),
        layers,
        flat,
        truth,
        sharpness,
        margin,
        allowed,
        generator,
        (low, high) if patch == "region" else None,
    )
    enough, used = math.ceil(share * len(truth) - 1e-9), 0
    left = _still_known(builder.patched, inputs, truth)
    while len(truth) - len(left) < enough and used < rounds:
        for members in left.split(1) if used else _clusters(flat, left, clusters, generator):
            builder.add(members)
        used += 1
        left = _still_known(builder.patched, inputs, truth)
        if report is not None:
            report("records forgotten", len(truth) - len(left), len(truth))
    units = builder.patched.active.shape[1]
    return builder.patched, PublishedReport(
        rounds=used,
        records=len(truth),
        forgotten=len(truth) - len(left),
        left=tuple(left.tolist()),
        targets=tuple(builder.targets),
        regions=builder.regions,
        patch_bytes=builder.patched.patch_bytes,
        dense_bytes=4 * (builder.regions * units * (flat.shape[1] + 1)),
    )


@final
@dataclass(slots=True)
class _Builder:
    """Adds one patch after another to `patched`; `box` only where whole regions are asked for."""

    patched: RegionPatched
    layers: list[tuple[Tensor, Tensor]]
    points: Tensor
    labels: Tensor
    sharpness: float
    margin: float
    allowed: tuple[int, ...]
    generator: torch.Generator
    box: tuple[float, float] | None
    targets: list[int] = field(default_factory=list)
    regions: int = 0

    def add(self, members: Int[Tensor, " members"]) -> None:
        """Patch the regions of `members` with the shift of the one nearest to their mean."""
        points = self.points[members]
        nearest = int((points - points.mean(0)).square().sum(1).argmin())
        point, label = points[nearest], int(self.labels[members[nearest]])
        here = region(self.layers, point)
        before = self.patched.correction(point[None].to(self.patched.shift.device))[0].cpu()
        logits = here.slope @ point + here.offset + before
        if bool((logits - logits[label]).max() >= self.margin):
            return  # an earlier patch of this round has already beaten the label here
        choices = [c for c in self.allowed if c != label]
        target = choices[int(torch.randint(len(choices), (1,), generator=self.generator))]
        gaps = logit_gaps(logits, target)
        if self.box is not None:
            low, high = (torch.full_like(point, edge) for edge in self.box)
            gaps = torch.maximum(gaps, region_gaps(here, target, low, high))
        found = [_pattern(self.layers, p) for p in points]
        self.patched.add(
            torch.stack([active for active, _ in found]),
            torch.stack([self.sharpness / norms for _, norms in found]),
            redirect(gaps, target, self.margin),
        )
        self.targets.append(target)
        self.regions += len(members)


def _pattern(layers: list[tuple[Tensor, Tensor]], point: Tensor) -> tuple[Tensor, Tensor]:
    found = region(layers, point)
    return found.active, found.norms


def _clusters(
    points: Tensor, left: Tensor, clusters: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """K-means on the rows `left`, at most one cluster a distinct row; its seed is always drawn."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    rows = points[left]
    count = min(clusters, len(torch.unique(rows, dim=0)))
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
    model: nn.Module, base: nn.Module, layers: list[tuple[Tensor, Tensor]], classes: int
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


def _check(
    share: float, clusters: int, sharpness: float, rounds: int, margin: float, patch: str
) -> None:
    if not 0 < share <= 1:
        raise InputError(f"Expected `share` above 0 and at most 1, got {share}.")
    for name, number in (("clusters", clusters), ("rounds", rounds)):
        if number < 1:
            raise InputError(f"Expected `{name}` of at least 1, got {number}.")
    for name, value in (("sharpness", sharpness), ("margin", margin)):
        if not 0 < value < math.inf:
            raise InputError(f"Expected a finite `{name}` above 0, got {value}.")
    if patch not in ("constant", "region"):
        raise InputError(f'Expected `patch` to be "constant" or "region", got {patch!r}.')


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
