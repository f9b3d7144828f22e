"""The network in exact rational arithmetic, on the stored float32 numbers.

A float is an integer times a power of two, so is every sum and product of floats. All numbers of
an array share one exponent; the integers are Python's, of any length. Matrix products cut them into
limbs so short that float64 products add up without rounding (2 B + log2 n <= 53), which is as exact
as the schoolbook and some fifty times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from expunge.certificate.layers import Network

__all__ = ["Exact", "ExactNetwork", "Scaled", "fraction", "prepare", "scaled"]

Integers = NDArray[np.object_]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """The numbers `integers` · 2^`exponent`; the integers are Python's, of any shape."""

    integers: Integers
    exponent: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exact:
    """The exact `gates` (n, P) before the clip, and `logits` (n, K)."""

    gates: Scaled
    logits: Scaled


def fraction(integer: int, exponent: int) -> Fraction:
    """The number integer · 2^exponent."""
    if exponent >= 0:
        return Fraction(integer << exponent)
    return Fraction(integer, 1 << -exponent)


def scaled(values: NDArray[Any]) -> Scaled:
    """Write finite floats (float32 or float64, any shape) exactly on one exponent."""
    mantissas, exponents = np.frexp(values.astype(np.float64))
    whole = (mantissas * 2.0**53).astype(np.int64)
    trailing = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    trailing = np.where(whole == 0, 0, trailing)
    powers = np.where(whole == 0, 0, exponents - 53 + trailing)
    lowest = int(powers[whole != 0].min(initial=0))
    whole >>= trailing.astype(np.int64)
    lifts = np.where(whole == 0, 0, powers - lowest)
    return Scaled(_objects(whole) << _objects(lifts), lowest)


def _objects(values: NDArray[Any]) -> Integers:
    return values.astype(object)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """A matrix (m, n) cut into limbs, transposed, and its bias."""

    limbs: tuple[NDArray[np.float64], ...]
    bits: int
    exponent: int
    bias: Scaled

    def __call__(self, rows: Scaled) -> Scaled:
        product = Scaled(self._product(rows.integers), rows.exponent + self.exponent)
        return _added(product, self.bias)

    def _product(self, rows: Integers) -> Integers:
        """Integers (k, n) times the matrix, as integers (k, m)."""
        pieces = _limbs(rows, self.bits)
        shape = (len(rows), self.limbs[0].shape[1])
        digits = [np.zeros(shape, np.int64) for _ in range(len(pieces) + len(self.limbs) - 1)]
        assert min(len(pieces), len(self.limbs)) < 2**10, "a digit would leave int64"
        for i, left in enumerate(pieces):
            for j, right in enumerate(self.limbs):
                digits[i + j] += (left @ right).astype(np.int64)
        total = _objects(digits[-1])
        for digit in reversed(digits[:-1]):
            total = (total << self.bits) + _objects(digit)
        return total


def _map(weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> _Map:
    bits = (53 - weight.shape[1].bit_length()) // 2
    whole = scaled(weight.T)
    given = np.zeros(len(weight), np.float32) if bias is None else bias
    return _Map(tuple(_limbs(whole.integers, bits)), bits, whole.exponent, scaled(given))


def _limbs(integers: Integers, bits: int) -> list[NDArray[np.float64]]:
    """Digits to the base 2^bits, lowest first; the last carries the sign."""
    longest = max(abs(n).bit_length() for n in (integers.max(initial=0), integers.min(initial=0)))
    count = longest // bits + 1
    low = [(integers >> (bits * k)) & ((1 << bits) - 1) for k in range(count - 1)]
    return [part.astype(np.float64) for part in [*low, integers >> (bits * (count - 1))]]


def _at(values: Scaled, exponent: int) -> Integers:
    return values.integers << (values.exponent - exponent)


def _added(left: Scaled, right: Scaled) -> Scaled:
    exponent = min(left.exponent, right.exponent)
    return Scaled(_at(left, exponent) + _at(right, exponent), exponent)


@final
@dataclass(frozen=True, slots=True, eq=False)
class ExactNetwork:
    """A network prepared for exact evaluation; call it with some hundred rows at a time."""

    stages: tuple[_Map | None, ...]
    head: _Map
    gates: _Map
    network: Network

    def __call__(self, rows: NDArray[np.float32]) -> Exact:
        """Evaluate rows (n, features), which must be finite."""
        inner = self.features(rows)
        gates = self.gates(inner)
        return Exact(gates=gates, logits=_added(self.head(inner), self._shift(gates)))

    def features(self, rows: NDArray[np.float32]) -> Scaled:
        """What enters the head (n, d): the rows themselves where there are no layers."""
        inner = scaled(rows)
        for stage in self.stages:
            inner = _relu(inner) if stage is None else stage(inner)
        return inner

    def _shift(self, gates: Scaled) -> Scaled:
        exponent = min(gates.exponent, 0)
        one = 1 << -exponent
        opened = np.minimum(np.maximum(_at(gates, exponent), 0), one)
        used = (opened != 0).any(axis=0).astype(bool)
        if not used.any():
            return Scaled(np.zeros((len(opened), 1), dtype=object), 0)
        return _map(self.network.shift[:, used], None)(Scaled(opened[:, used], exponent))


def prepare(network: Network) -> ExactNetwork:
    """Cut the network's numbers into limbs, once for all rows."""
    stages = tuple(None if s.weight is None else _map(s.weight, s.bias) for s in network.stages)
    head = _map(network.weight, network.bias)
    return ExactNetwork(stages, head, _map(network.gate_weight, network.gate_bias), network)


def _relu(values: Scaled) -> Scaled:
    return Scaled(np.maximum(values.integers, 0), values.exponent)
