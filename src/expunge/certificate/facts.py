"""What a certificate is written from: plain facts and numpy arrays, filled in by the method.

The method that made a patch knows the records, their targets and the retained rows; this is the
form in which it hands them to the writer. Nothing here is believed by the checker, which reads the
stored bytes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["EntangledEvidence", "Evidence", "Layer", "RecordEvidence"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordEvidence:
    """One forgotten record. Private.

    `row` has shape (d,): the features that enter the head, or the flattened input. `target` has
    shape (K,), or is None for `mispredict`. `tolerance` is ρ for `unseen` and `margin`, the least
    margin for `mispredict`. `salt` is 64 hex digits, `request` counts requests from 0.
    """

    id: str
    label: int
    salt: str
    row: NDArray[np.float32]
    claim: Literal["unseen", "mispredict", "margin"]
    target: NDArray[np.float64] | None
    tolerance: float
    request: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntangledEvidence:
    """A forgotten record that no gate separates from the retained rows. Private.

    `rows` (w,) are positions of retained rows, `weights` (w,) are non-negative and are normalised
    by the checker; their mean lies within `residual` of the record in every feature. With reason
    `rounding` (no gate holds beyond the rounding error) they are empty. `names` are
    the ids of these rows, for the private report; no certificate holds them.
    """

    id: str
    label: int
    salt: str
    row: NDArray[np.float32]
    reason: Literal["identical", "hull", "rounding"]
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    residual: float
    names: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operation before the head: `linear` with its tensor names, or `relu`."""

    op: Literal["linear", "relu"]
    weight: str | None = None
    bias: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """All that a certificate states, or commits to.

    `features` is the length of a row. `layers` is empty where the claim starts at the features.
    `records` holds every request so far, earliest first. `unmerged` are the ids of records that did
    not fit (merged form); `earlier_without_claim` are the ids of earlier requests for which nothing
    is claimed. `retained` has shape (n, d) or (0, d) in the merged and narrow forms. `removed`
    holds class ids (narrow form). `tune_digest` is "" where no targets were drawn. `base` maps
    tensor names to digests of the weights before any edit. `previous` is the SHA-256 of the
    predecessor's payload. `method` is informational.
    """

    form: Literal["gated", "merged", "narrow"]
    spec: Literal["unseen", "mispredict", "absent"]
    head: str
    classes: int
    features: int
    layers: tuple[Layer, ...] = ()
    records: tuple[RecordEvidence, ...] = ()
    entangled: tuple[EntangledEvidence, ...] = ()
    unmerged: tuple[str, ...] = ()
    earlier_without_claim: tuple[str, ...] = ()
    retained: NDArray[np.float32]
    retained_salt: str
    removed: tuple[int, ...] = ()
    rule: str
    seed: int
    tune_digest: str = ""
    base: Mapping[str, str]
    previous: str | None = None
    method: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
