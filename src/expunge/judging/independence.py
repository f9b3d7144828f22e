"""Is a reference a model of its own, or the original again? What can be shown of it.

    cos(θ_r, θ_o), and with the weights before training cos(θ_r − θ_0, θ_o − θ_0), tensor by tensor
    share of judge rows that stay on which both give the same class, forgotten outputs masked
    AUC of the margin, forget records against retained rows of their classes, under the reference

A masked or fine-tuned copy has a cosine near 1, a separate training near 0; the AUC is 0.5 where
the reference was trained on both, and below where it never saw the forget records. What nothing
shows is called unverified, never refused: models fine-tuned from one backbone look alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.functional.divergence import agreement
from expunge.functional.intervals import paired_difference
from expunge.functional.membership import Auc, class_matched_auc, margins
from expunge.judging.known import chance_of
from expunge.judging.outputs import hits, masked, percent
from expunge.patches.regions import inside
from expunge.records import Limits, Scope, Standing

__all__ = [
    "RETAINED_SEED",
    "able_as",
    "agreement_of",
    "alike_among",
    "chosen_retained",
    "cosine",
    "seen_auc",
    "standing_of",
    "weights_of",
]

MOST_ALIKE = 0.5
"""A cosine from here on shows no independence."""

NO_STEP = 1e-3
"""Weights that differ from `initial` by less than this share were not trained from there."""

_TINY = 1e-300
"""Divides where one of two tensors is zero."""

MOST_RETAINED = 500
"""How many retained rows a record request's AUC is taken against."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The floating parameters by name, without patches on linear regions; buffers are not weights.

    Running means and variances follow the data, and are alike in all models trained on them.
    """
    return {
        name: p.detach() for name, p in inside(model).named_parameters() if p.is_floating_point()
    }


def cosine(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    initial: Mapping[str, Tensor] | None = None,
) -> float | None:
    """Cosine of each tensor with that of the same name and shape, less its `initial` one, float64.

    The mean over the tensors, weighted by their elements, so that no entry written large, as a mask
    writes its bias, hides a copy. Tensors that are zero in both are left out, one that is zero in
    one of them counts 0. None where less than half of the elements of `first` find their like, all
    are zero, or training added next to nothing to `initial` in one of them: then these are no
    weights from before it.
    """
    total = 0.0
    steps, whole = [0.0, 0.0], [0.0, 0.0]
    compared = matched = 0
    for name, tensor in first.items():
        own = [tensor, second.get(name), tensor if initial is None else initial.get(name)]
        if any(t is None or t.shape != tensor.shape for t in own):
            continue
        a, b, start = (t.detach().cpu().double().flatten() for t in own if t is not None)
        whole = [whole[0] + float(a @ a), whole[1] + float(b @ b)]
        if initial is not None:
            a, b = a - start, b - start
            steps = [steps[0] + float(a @ a), steps[1] + float(b @ b)]
        matched += tensor.numel()
        sizes = float(a.norm()), float(b.norm())
        if max(sizes) > 0:
            compared += tensor.numel()
            total += tensor.numel() * float(a @ b) / max(math.prod(sizes), _TINY)
    if 2 * matched < sum(t.numel() for t in first.values()) or not compared:
        return None
    if initial is not None and any(
        step <= NO_STEP**2 * own for step, own in zip(steps, whole, strict=True)
    ):
        return None
    return total / compared


def agreement_of(
    first: Float[Tensor, "rows classes"],
    second: Float[Tensor, "rows classes"],
    gone: frozenset[int],
) -> float | None:
    """Percent of rows given the same class by both, outputs in `gone` masked; None without rows."""
    return percent(agreement(masked(first, gone), masked(second, gone))) if len(first) else None


RETAINED_SEED = 0
"""Which rows that stay are looked at: the same for every run, so that none can be picked."""


def chosen_retained(
    labels: Int[Tensor, " retained"], forget_labels: Int[Tensor, " forget"], seed: int
) -> Int[Tensor, " chosen"]:
    """Places of at most 500 retained rows of the forget records' classes, drawn by `seed`."""
    same = torch.isin(labels, forget_labels.unique()).nonzero().flatten()
    order = torch.randperm(len(same), generator=torch.Generator().manual_seed(seed))
    return same[order[:MOST_RETAINED].sort().values]


def able_as(
    reference: Float[Tensor, "rows classes"],
    original: Float[Tensor, "rows classes"],
    labels: Int[Tensor, " rows"],
    scope: Scope,
    limits: Limits,
) -> bool:
    """Whether a reference is about as good on judge rows that stay as a retrained model would be.

    Not clearly more than `mean_bound` points below the masked original for a class (`original` has
    its forgotten outputs at −∞), and for records, since retraining on fewer of them may lose more,
    not clearly less than half as far above chance.
    """
    if not len(labels):
        return False
    old, new = hits(original, labels), hits(reference, labels)
    _, _, high = paired_difference(new.int() - old.int(), confidence=limits.confidence)
    half = 0.5 * max(percent(old) - chance_of(original), 0.0)
    least = half if scope == "records" else min(half, limits.mean_bound)
    return 100 * high >= -least


def alike_among(
    references: Sequence[nn.Module],
    standing: Sequence[Standing],
    initial: Mapping[str, Tensor] | None,
) -> tuple[Standing, ...]:
    """The standings, where a reference that is like an earlier one is not counted once more.

    One retrained model with a hair changed has another digest, and no spread.
    """
    found: list[Standing] = []
    for number, one in enumerate(standing):
        own = weights_of(references[number])
        for earlier in range(number):
            if one.level != "C1" or found[earlier].level != "C1":
                continue
            other = weights_of(references[earlier])
            steps = None if initial is None else cosine(own, other, initial)
            near = cosine(own, other) if steps is None else steps
            if near is not None and abs(near) >= MOST_ALIKE:
                one = dataclasses.replace(one, level="unverified")
        found.append(one)
    return tuple(found)


def seen_auc(
    forget: Float[Tensor, "forget classes"],
    forget_labels: Int[Tensor, " forget"],
    retained: Float[Tensor, "retained classes"],
    retained_labels: Int[Tensor, " retained"],
) -> Auc | None:
    """How well one model's margins tell forget records from retained rows of their classes.

    None where there are no such rows, or the model gives no numbers.
    """
    own, theirs = margins(forget, forget_labels), margins(retained, retained_labels)
    if bool(torch.isnan(torch.cat([own, theirs])).any()):
        return None
    found = class_matched_auc(own, forget_labels, theirs, retained_labels)
    return found if found.used else None


def standing_of(
    reference: nn.Module,
    original: nn.Module | None,
    *,
    name: str,
    scope: Scope,
    initial: Mapping[str, Tensor] | None = None,
    agree: float | None = None,
    seen: Auc | None = None,
    able: bool = True,
) -> Standing:
    """What shows that `reference` was trained on its own, without what is to be forgotten.

    `agree` comes from `agreement_of`, `seen` from `seen_auc`, `able` from `able_as`: a net that
    learnt nothing is like no original, and knows no class. Level C1: able, and a cosine nearer to 0
    than 0.5, of what training added to `initial` where these weights are given and fit; for records
    also the whole 95 % interval of `seen` below 0.5, which a copy of the original comes to by
    training on a little while it still knows them. Else "unverified".
    """
    own, given = weights_of(reference), None if original is None else weights_of(original)
    alike = None if given is None else cosine(own, given)
    steps = None if given is None or initial is None else cosine(own, given, initial)
    found = alike if steps is None else steps
    shown = able and found is not None and abs(found) < MOST_ALIKE
    if scope == "records":
        shown = shown and seen is not None and seen.high < 0.5
    return Standing(
        reference=name,
        level="C1" if shown else "unverified",
        weights_cosine=alike,
        steps_cosine=steps,
        agreement=agree,
        seen_auc=None if seen is None else seen.value,
        seen_interval=None if seen is None else (max(seen.low, 0.0), min(seen.high, 1.0)),
    )
