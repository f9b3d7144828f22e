"""Whether the records are *spread* like unseen rows: what an average of signals would hide.

Records forced wrong beside others left untouched balance in an AUC. Two tests, each at 0.1 %, which
only ever reject: the class-matched AUC of |margin − median|, the median of both kinds of rows of a
class together, against its null band (Mann and Whitney 1947); and two-sample Kolmogorov-Smirnov
tests within each class, put together by Fisher's method.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from scipy.stats import chi2, ks_2samp
from torch import Tensor

from expunge.functional.membership import class_matched_auc, null_half_width
from expunge.judging.outputs import Outputs
from expunge.judging.signal import Labels, scores_of

__all__ = ["RARE", "Shape", "shape_of"]


RARE = 0.001
"""How often each of the two tests rejects where nothing tells the rows apart."""


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """The AUC of the distance from the middle, its null band, and the p-value of the other test."""

    auc: float
    band: float
    p: float

    @property
    def unlike(self) -> bool:
        """Whether one of the tests rejects."""
        return abs(self.auc - 0.5) > self.band or self.p < RARE

    def rejects(self, references: Iterable[Shape]) -> bool:
        """Whether one rejects, and for none of the retrained models."""
        return self.unlike and not any(shape.unlike for shape in references)


def shape_of(copies: Sequence[Outputs], labels: Labels) -> Shape:
    """The shape of the margins of the model that answered `copies`."""
    members, outsiders = scores_of(copies, labels, "margin")
    middle_m, middle_o = members.clone(), outsiders.clone()
    log_p, classes = 0.0, 0
    for label in labels.forget.unique().tolist():
        here, there = labels.forget == label, labels.judge == label
        if not bool(there.any()):
            continue
        middle = _median(torch.cat([members[here], outsiders[there]]))
        middle_m[here] = (members[here] - middle).abs()
        middle_o[there] = (outsiders[there] - middle).abs()
        p = _same_distribution(members[here], outsiders[there])
        log_p += math.log(max(p, 1e-300))
        classes += 1
    spread = class_matched_auc(middle_m, labels.forget, middle_o, labels.judge)
    return Shape(
        auc=spread.value,
        band=null_half_width(labels.forget, labels.judge, confidence=1 - RARE),
        p=float(chi2.sf(-2 * log_p, 2 * classes)) if classes else 1.0,
    )


def _median(values: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    return torch.quantile(values, 0.5)


def _same_distribution(x: Float[Tensor, " m"], y: Float[Tensor, " n"]) -> float:
    """The p-value of Kolmogorov and Smirnov: exact for small samples, and else the limit law's."""
    with warnings.catch_warnings():
        # where the exact value overflows, the limit law is taken, and a warning says so
        warnings.simplefilter("ignore", RuntimeWarning)
        small = len(x) * len(y) <= 10_000
        return float(ks_2samp(x.numpy(), y.numpy(), method="exact" if small else "asymp").pvalue)
