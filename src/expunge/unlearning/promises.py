"""The promises that every method makes, checked after each edit."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from expunge.errors import (
    ContractError,
)
from expunge.methods.base import Method
from expunge.network.state import (
    count_changed,
    digest_of,
    hook_count,
    layout_of,
    not_finite,
    state_of,
)
from expunge.patches.regions import RegionPatched
from expunge.records import (
    Structure,
)
from expunge.unlearning.request import Door

__all__ = ["changed_buffers", "check_contract", "checked_result", "weights_of"]


def _inside(model: nn.Module) -> nn.Module:
    """The model, or the one inside patches on linear regions: its tensors keep their names."""
    return model.base if isinstance(model, RegionPatched) else model


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, and what patches on linear regions are made of, row by row."""
    weights: dict[str, Tensor] = dict(_inside(model).named_parameters())
    if isinstance(model, RegionPatched):
        for name in ("active", "steepness", "owner", "shift"):
            weights |= {f"{name}[{i}]": row for i, row in enumerate(model.get_buffer(name))}
    return weights


def changed_buffers(door: Door, edited: nn.Module) -> int:
    """How many entries changed in buffers that the given model has, those of its head apart."""
    own = set() if door.head is None else door.head.tensor_names()
    old = {n: t for n, t in _inside(door.original).named_buffers() if n not in own}
    new = {n: t for n, t in _inside(edited).named_buffers() if n in old}
    return count_changed(old, new)


def checked_result(edited: Any, method: Method) -> nn.Module:
    """What `apply` returned, or ContractError."""
    if not isinstance(edited, nn.Module):
        raise ContractError(
            f"Expected method {method.info.name!r} to return a module, got "
            f"{type(edited).__name__}. `apply` must end with `return model` (for retrain: so must "
            "`fit`)."
        )
    return edited


def check_contract(
    door: Door, edited: nn.Module, digest_before: str, hooks: int, structure: Structure
) -> None:
    """Raise ContractError where the method broke a promise."""
    name = door.method.info.name
    if digest_of(state_of(door.original)) != digest_before:
        raise ContractError(
            f"Expected method {name!r} to work on its copy, but the given model changed. This is a "
            "bug in the method (or `factory` returns the model itself)."
        )
    own = {t.data_ptr() for t in state_of(door.original).values() if t.numel()}
    if any(t.data_ptr() in own for t in state_of(edited).values() if t.numel()):
        raise ContractError(
            f"Expected method {name!r} to return a model of its own, got one that shares memory "
            "with the given model (does `factory` return the model itself?)."
        )
    bad = not_finite(state_of(edited))
    if bad:
        raise ContractError(
            f"Expected finite weights from method {name!r}, got NaN or infinity in {bad[0]!r}."
        )
    if hook_count(edited) > hooks:
        raise ContractError(f"Expected method {name!r} to remove its hooks, got some left over.")
    plain = door.head is None or door.head.kind == "plain"
    plain = plain and not isinstance(door.original, RegionPatched)
    if structure == "same" and (plain or "training" not in door.needs):
        old, new = layout_of(door.original), layout_of(edited)
        for what in ("shapes", "dtypes", "devices"):
            if getattr(old, what) != getattr(new, what):
                raise ContractError(
                    f"Expected method {name!r} to keep names, shapes, dtypes and devices, but "
                    f"{what} differ. For retrain: does `factory` build the same architecture?"
                )
