"""The promises that every method makes, checked after each edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from expunge.certificate.facts import Evidence
from expunge.errors import ContractError
from expunge.network.heads import Head, head_at
from expunge.network.state import (
    count_changed,
    digest_of,
    hook_count,
    layout_of,
    not_finite,
    restore_layout,
    state_of,
)
from expunge.patches.regions import RegionPatched, inside
from expunge.records import Structure
from expunge.unlearning.request import Look, Request
from expunge.unlearning.work import Work

__all__ = ["Edited", "described", "kept_promises"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Edited:
    """A model that kept the promises: on its `home` device, in its old modes, with what changed."""

    model: nn.Module
    structure: Structure
    home: torch.device
    head: Head | None
    evidence: Evidence | None
    parameters: int
    parameters_changed: int
    buffers_changed: int


def kept_promises(request: Request, look: Look, work: Work) -> Edited:
    """What the method made, checked; raises ContractError where it broke a promise."""
    name, info = request.method.info.name, request.method.info
    structure = work.run.record.structure or info.structure
    home = next(iter(look.layout.devices.values()), torch.device("cpu"))
    if not isinstance(work.result, nn.Module):
        raise ContractError(
            f"Expected method {name!r} to return a module, got {type(work.result).__name__}. "
            "`apply` must end with `return model` (for retrain: so must `fit`)."
        )
    model = work.result.to(home)
    restore_layout(model, look.layout)
    _check_contract(request, model, look.digest, work.hooks)
    if structure == "same":
        _check_layout(request, model)
    edited = described(request, model, structure, home, work.run.record.evidence)
    if edited.buffers_changed and not info.changes_buffers:
        raise ContractError(
            f"Expected method {name!r} to leave buffers alone (it does not declare "
            f"`changes_buffers`), but {edited.buffers_changed} entries changed. This is a bug in "
            "the method."
        )
    return edited


def described(
    request: Request,
    model: nn.Module,
    structure: Structure,
    home: torch.device,
    evidence: Evidence | None,
) -> Edited:
    """What changed in `model` against the given one, counted."""
    own = _weights_of(model)
    return Edited(
        model=model,
        structure=structure,
        home=home,
        head=_head_of(request, model),
        evidence=evidence,
        parameters=sum(tensor.numel() for tensor in own.values()),
        parameters_changed=count_changed(_weights_of(request.model), own),
        buffers_changed=_changed_buffers(request, model),
    )


def _check_contract(request: Request, edited: nn.Module, digest_before: str, hooks: int) -> None:
    name, given = request.method.info.name, request.model
    if digest_of(state_of(given)) != digest_before:
        raise ContractError(
            f"Expected method {name!r} to work on its copy, but the given model changed. This is a "
            "bug in the method (or `factory` returns the model itself)."
        )
    own = {t.data_ptr() for t in state_of(given).values() if t.numel()}
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


def _check_layout(request: Request, edited: nn.Module) -> None:
    """Names, shapes, dtypes and devices stay, but for a patched model that is trained anew."""
    if not request.plain and "training" in request.needs:
        return
    old, new = layout_of(request.model), layout_of(edited)
    for what in ("shapes", "dtypes", "devices"):
        if getattr(old, what) != getattr(new, what):
            raise ContractError(
                f"Expected method {request.method.info.name!r} to keep names, shapes, dtypes and "
                f"devices, but {what} differ. For retrain: does `factory` build the same "
                "architecture?"
            )


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, and what patches on linear regions are made of, row by row."""
    weights: dict[str, Tensor] = dict(inside(model).named_parameters())
    if isinstance(model, RegionPatched):
        for name in ("active", "steepness", "owner", "shift"):
            weights |= {f"{name}[{i}]": row for i, row in enumerate(model.get_buffer(name))}
    return weights


def _changed_buffers(request: Request, edited: nn.Module) -> int:
    """How many entries changed in buffers that the given model has, those of its head apart."""
    own = set() if request.head is None else request.head.tensor_names()
    old = {n: t for n, t in inside(request.model).named_buffers() if n not in own}
    new = {n: t for n, t in inside(edited).named_buffers() if n in old}
    return count_changed(old, new)


def _head_of(request: Request, edited: nn.Module) -> Head | None:
    if request.head is None:
        return None
    try:
        layer = edited.get_submodule(request.head.name)
    except AttributeError:  # the method wrapped the whole model
        return None
    return head_at(request.head.name, layer) if isinstance(layer, nn.Linear) else None
