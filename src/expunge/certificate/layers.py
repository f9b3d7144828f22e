"""The part of the stored model that a certificate speaks about: from a row to the logits.

    h = layers(row),    l' = W h + b + D · clip(U h + c, 0, 1)

Without gates P is 0. The narrow form has the rows of the classes that are left, `kept`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError

__all__ = ["GATE_TENSORS", "Network", "Stage", "network_of", "under"]

GATE_TENSORS = ("gate_weight", "gate_bias", "shift")
"""The tensors that the gated form adds under the head's name: U, c, D."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """A layer before the head: a linear map (m, n) with bias (m,), or ReLU where both are None."""

    weight: NDArray[np.float32] | None
    bias: NDArray[np.float32] | None


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """From rows (n, features) to logits (n, K): float32 as stored, finite, of fitting shapes.

    `weight` (K, d), `bias` (K,), `gate_weight` (P, d), `gate_bias` (P,), `shift` (K, P). In the
    narrow form K counts the classes that are left and `kept` (K,) holds their ids.
    """

    features: int
    stages: tuple[Stage, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    gate_weight: NDArray[np.float32]
    gate_bias: NDArray[np.float32]
    shift: NDArray[np.float32]
    kept: tuple[int, ...] | None = None

    @property
    def widest(self) -> int:
        """The largest number of values that a row takes on its way."""
        sizes = [len(s.weight) for s in self.stages if s.weight is not None]
        return max([self.features, len(self.weight), len(self.gate_weight), *sizes])


def under(head: str, name: str) -> str:
    """The full name of a tensor of the head; `head` is empty where the model is the head."""
    return f"{head}.{name}" if head else name


def network_of(
    tensors: Mapping[str, NDArray[Any]],
    *,
    head: str,
    features: int,
    layers: Sequence[tuple[str, str | None, str | None]] = (),
) -> Network:
    """Find the network among the tensors of a model file; `layers` are (op, weight, bias).

    Raises InputError where a tensor is missing, not float32, not finite, or of another shape.
    """
    size = features
    stages = []
    for op, weight_name, bias_name in layers:
        if op == "relu":
            stages.append(Stage(weight=None, bias=None))
            continue
        weight = _matrix(tensors, str(weight_name), columns=size)
        size = len(weight)
        if not size:
            raise _unfit(str(weight_name), "a layer with some width", weight.shape)
        bias = _vector(tensors, bias_name, size)
        stages.append(Stage(weight=weight, bias=bias))
    weight = _matrix(tensors, under(head, "weight"), columns=size)
    classes = len(weight)
    if not classes:
        raise _unfit(under(head, "weight"), "a head with a row for each class", weight.shape)
    bias_name = under(head, "bias")
    gate_weight, gate_bias, shift = _gates(tensors, head, classes=classes, size=size)
    return Network(
        features=features,
        stages=tuple(stages),
        weight=weight,
        bias=_vector(tensors, bias_name if bias_name in tensors else None, classes),
        gate_weight=gate_weight,
        gate_bias=gate_bias,
        shift=shift,
        kept=_kept(tensors.get(under(head, "kept")), classes),
    )


def _gates(
    tensors: Mapping[str, NDArray[Any]], head: str, *, classes: int, size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    names = [under(head, name) for name in GATE_TENSORS]
    if not any(name in tensors for name in names):
        empty = np.zeros((0, size), np.float32)
        return empty, np.zeros(0, np.float32), np.zeros((classes, 0), np.float32)
    gate_weight = _matrix(tensors, names[0], columns=size)
    gate_bias = _vector(tensors, names[1], len(gate_weight))
    shift = _matrix(tensors, names[2], columns=len(gate_weight))
    if len(shift) != classes:
        raise _unfit(names[2], f"{classes} rows", len(shift))
    return gate_weight, gate_bias, shift


def _matrix(tensors: Mapping[str, NDArray[Any]], name: str, *, columns: int) -> NDArray[np.float32]:
    found = _float32(tensors, name)
    if found.ndim != 2 or found.shape[1] != columns:
        raise _unfit(name, f"a matrix with {columns} columns", found.shape)
    return found


def _vector(
    tensors: Mapping[str, NDArray[Any]], name: str | None, size: int
) -> NDArray[np.float32]:
    if name is None:
        return np.zeros(size, np.float32)
    found = _float32(tensors, name)
    if found.shape != (size,):
        raise _unfit(name, f"{size} values", found.shape)
    return found


def _float32(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    if name not in tensors:
        raise _unfit(name, "a tensor in the model file", "none")
    found = tensors[name]
    if found.dtype != np.float32:
        raise _unfit(name, "float32", found.dtype)
    if not np.isfinite(found).all():
        raise _unfit(name, "finite values", "some that are not")
    return found


def _kept(found: NDArray[Any] | None, classes: int) -> tuple[int, ...] | None:
    if found is None:
        return None
    if found.dtype != np.int64 or found.shape != (classes,):
        raise _unfit("kept", f"{classes} class ids in int64", f"{found.dtype} {found.shape}")
    return tuple(int(k) for k in found)


def _unfit(name: str, expected: str, got: object) -> InputError:
    return InputError(
        f"Expected {name!r} to be {expected}, got {got}. The model file is not the one that the "
        "certificate describes."
    )
