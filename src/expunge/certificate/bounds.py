"""A sound enclosure of what the float32 network gives, in whatever order it adds up.

Float64 values with radii: with u = 2⁻²⁴ and γ(k, u) = k u / (1 - k u), a sum of n products and a
bias, evaluated in float32 in any order, with or without fused multiplications, on inputs within E
of x, lies within

    Σ|a| E + γ(n + 1, u) (Σ|a| (|x| + E) + |b|) + underflow

of Σ a x + b; the checker's own float64 sums add γ(n + 1, 2⁻⁵³) times the same. ReLU and clip are
exact and do not widen anything. A gate with value + radius <= 0 is exactly 0 wherever it runs, and
adding exact zeros changes nothing. Values below 2⁻¹²⁶ may be flushed to zero, going in or coming
out. Where a float32 sum could overflow, the radius is infinite. With `roundoff=0` the enclosure is
that of real arithmetic: the checker's own errors alone.

Reference: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002, §3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from expunge.certificate.layers import Network

__all__ = [
    "UNIT_ROUNDOFF",
    "gates_enclosure",
    "logits_enclosure",
    "shut_rows",
]

UNIT_ROUNDOFF = 2.0**-24
_OWN = 2.0**-53
_TINY = 2.0**-126
_LARGEST = 2.0**127
_CHUNK = 2**20

Floats = NDArray[np.float64]

_QUIETLY = np.errstate(all="ignore")  # what overflows becomes an infinite radius


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """A linear map in float64, prepared for many rows."""

    weight: Floats
    size: Floats
    bias: Floats
    mass: Floats

    def __call__(self, values: Floats, errors: Floats, unit: float) -> tuple[Floats, Floats]:
        count = self.weight.shape[1]
        deployed, own = _gamma(count + 1, unit), _gamma(count + 1, _OWN)
        out = values @ self.weight.T + self.bias
        reach = (deployed + own) * np.abs(values) + (1 + deployed) * errors
        flushed = 4 * (count + 1) + 2 * self.mass + 2 * _summed(np.abs(values) + errors)
        radius = reach @ self.size.T + (deployed + own) * np.abs(self.bias) + _TINY * flushed
        radius *= 1 + (8 * count + 64) * _OWN
        if unit:
            radius[~(radius <= deployed * _LARGEST)] = np.inf
        return out, radius


@_QUIETLY
def gates_enclosure(
    network: Network, rows: NDArray[np.float32], *, roundoff: float = UNIT_ROUNDOFF
) -> tuple[Floats, Floats]:
    """Enclose the gates of rows (n, features), before the clip: values and radii, both (n, P).

    Radii may be infinite.
    """
    width = len(network.gate_weight)
    parts = list(_gated(network, rows, roundoff))
    values = np.concatenate([np.zeros((0, width)), *(p[0] for p in parts)])
    return values, np.concatenate([np.zeros((0, width)), *(p[1] for p in parts)])


@_QUIETLY
def logits_enclosure(
    network: Network, rows: NDArray[np.float32], *, roundoff: float = UNIT_ROUNDOFF
) -> tuple[Floats, Floats]:
    """Enclose the logits of rows (n, features): values and radii, both (n, K).

    Radii may be infinite. No memory is needed for n · P gates.
    """
    width = len(network.weight)
    parts = list(_enclosed(network, rows, roundoff))
    values = np.concatenate([np.zeros((0, width)), *(p[0] for p in parts)])
    return values, np.concatenate([np.zeros((0, width)), *(p[1] for p in parts)])


@_QUIETLY
def shut_rows(network: Network, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of rows (n, features), those on which every gate is exactly 0 wherever it runs: (n,)."""
    parts = [(values + errors <= 0).all(axis=1) for values, errors in _gated(network, rows)]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def _enclosed(
    network: Network, rows: NDArray[np.float32], unit: float
) -> Iterator[tuple[Floats, Floats]]:
    gates, head = _map(network.gate_weight, network.gate_bias), _map(network.weight, network.bias)
    shift = network.shift.astype(np.float64)
    for inner, inner_errors in _features(network, rows, unit):
        scores, score_errors = gates(inner, inner_errors, unit)
        logits, logit_errors = head(inner, inner_errors, unit)
        yield _shifted(logits, logit_errors, scores, score_errors, shift, unit)


def _gated(
    network: Network, rows: NDArray[np.float32], unit: float = UNIT_ROUNDOFF
) -> Iterator[tuple[Floats, Floats]]:
    gates = _map(network.gate_weight, network.gate_bias)
    for inner, inner_errors in _features(network, rows, unit):
        yield gates(inner, inner_errors, unit)


def _features(
    network: Network, rows: NDArray[np.float32], unit: float
) -> Iterator[tuple[Floats, Floats]]:
    """What enters the head, chunk by chunk."""
    maps = [None if s.weight is None else _map(s.weight, s.bias) for s in network.stages]
    step = max(1, _CHUNK // network.widest)
    for start in range(0, len(rows), step):
        values = rows[start : start + step].astype(np.float64)
        errors = np.zeros_like(values)
        for layer in maps:
            if layer is None:
                values = np.maximum(values, 0)
            else:
                values, errors = layer(values, errors, unit)
        yield values, errors


def _shifted(
    logits: Floats,
    logit_errors: Floats,
    scores: Floats,
    score_errors: Floats,
    shift: Floats,
    unit: float,
) -> tuple[Floats, Floats]:
    """Add D · clip(scores, 0, 1); only gates that are not proven to be 0 can add rounding."""
    shut = scores + score_errors <= 0
    fixed = shut | (scores - score_errors >= 1)
    gates = np.clip(scores, 0, 1)
    spread = np.where(fixed, 0, score_errors)
    active = (~shut).sum(axis=1, keepdims=True)
    size = np.abs(shift)
    reach = (gates + spread) @ size.T + np.abs(logits) + logit_errors
    deployed, own = _gamma(active + 1, unit), _gamma(shift.shape[1] + 2, _OWN)
    flushed = _TINY * (4 * (active + 2) + 2 * size.sum(axis=1))
    radius = logit_errors + spread @ size.T + (deployed + own) * reach + flushed
    radius *= 1 + (8 * shift.shape[1] + 64) * _OWN
    if unit:
        radius[~(reach <= _LARGEST)] = np.inf
    untouched = active == 0
    return (
        np.where(untouched, logits, logits + gates @ shift.T),
        np.where(untouched, logit_errors, radius),
    )


def _map(weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> _Map:
    wide = weight.astype(np.float64)
    size = np.abs(wide)
    given = np.zeros(len(wide)) if bias is None else bias.astype(np.float64)
    return _Map(wide, size, given, size.sum(axis=1))


def _gamma(count: Any, unit: float) -> Any:
    """γ(count, unit), of a count or an array of counts; infinite where it means nothing."""
    part = np.asarray(count) * unit
    return np.where(part < 0.5, part / (1 - np.minimum(part, 0.5)), np.inf)


def _summed(values: Floats) -> Floats:
    return values.sum(axis=1, keepdims=True)
