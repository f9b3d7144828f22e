"""Digests, copies and censuses of modules: what the doors use to keep their promises."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

__all__ = [
    "Layout",
    "contents_of",
    "count_changed",
    "device_of",
    "digest_of",
    "hook_count",
    "layout_of",
    "not_finite",
    "restore_layout",
    "state_of",
]


_HOOK_FIELDS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers (also non-persistent ones) by name, without copying."""
    parameters = model.named_parameters(remove_duplicate=False)
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: tensor.detach() for name, tensor in (*parameters, *buffers)}


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first tensor lies; the CPU for a model without any."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensor names, dtypes, shapes and bytes (recipe `sha256-state-v1`)."""
    total = hashlib.sha256(b"sha256-state-v1\0")
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        header = f"{name}\0{dtype}\0{','.join(str(n) for n in tensor.shape)}\0"
        total.update(header.encode())
        flat = tensor.reshape(-1).view(torch.uint8)
        total.update(flat.numpy().tobytes())
    return total.hexdigest()


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of floating tensors that hold NaN or infinity."""
    return [
        name
        for name, tensor in state.items()
        if (tensor.is_floating_point() or tensor.is_complex())
        and not bool(torch.isfinite(tensor).all())
    ]


def hook_count(model: nn.Module) -> int:
    """How many hooks hang on the module, on everything below it and on their parameters."""
    on_modules = sum(
        len(getattr(module, name, ())) for module in model.modules() for name in _HOOK_FIELDS
    )
    on_parameters = sum(len(p._backward_hooks or ()) for p in model.parameters())
    return on_modules + on_parameters


def _bytes(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(flat.numel(), flat.element_size())


def count_changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> int:
    """Elements that differ bitwise between two states.

    Tensors of one name are compared element by element. Of a name that was not there before the
    content counts: nothing changed where a tensor that is gone by name held the same.
    """
    left = contents_of({name: t for name, t in before.items() if name not in after})
    changed = 0
    for name, tensor in after.items():
        old = before.get(name)
        if old is None:
            content = _content(tensor)
            moved = left[content] > 0
            left[content] -= 1
            changed += 0 if moved else tensor.numel()
        elif old.shape != tensor.shape or old.dtype != tensor.dtype:
            changed += tensor.numel()
        else:
            changed += int((_bytes(tensor.to(old.device)) != _bytes(old)).any(1).sum())
    return changed


def contents_of(state: Mapping[str, Tensor]) -> Counter[str]:
    """How often each content (dtype, shape and bytes) is among the tensors, whatever their names.

    Tensors without elements hold nothing and are left out.
    """
    return Counter(_content(tensor) for tensor in state.values() if tensor.numel())


def _content(tensor: Tensor) -> str:
    return digest_of({"": tensor})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything about a module that an edit of structure `same` must leave as it was."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    devices: Mapping[str, torch.device]
    requires_grad: Mapping[str, bool]
    training: Mapping[str, bool]


def layout_of(model: nn.Module) -> Layout:
    """Read names, shapes, dtypes, devices, `requires_grad` and train/eval modes."""
    state = state_of(model)
    return Layout(
        shapes={name: tuple(t.shape) for name, t in state.items()},
        dtypes={name: t.dtype for name, t in state.items()},
        devices={name: t.device for name, t in state.items()},
        requires_grad={n: p.requires_grad for n, p in model.named_parameters()},
        training={name: module.training for name, module in model.named_modules()},
    )


def restore_layout(model: nn.Module, layout: Layout) -> None:
    """Put modes and `requires_grad` back and clear gradients, where the names still exist."""
    for name, module in model.named_modules():
        if name in layout.training:
            module.training = layout.training[name]
    for name, parameter in model.named_parameters():
        parameter.grad = None
        if name in layout.requires_grad:
            parameter.requires_grad_(layout.requires_grad[name])
