"""Weights in and out of models: safetensors only, every misfit named."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

from expunge.errors import ModelError
from expunge.network.copying import copied
from expunge.network.lazy import lazy_layers
from expunge.network.naming import nearest_names
from expunge.network.state import not_finite

__all__ = [
    "build",
    "from_bytes",
    "load_weights",
    "read_weights",
    "save_state",
    "save_weights",
    "to_bytes",
    "writing",
]

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_FORMAT = {"format": "pt"}


def build(factory: Callable[[], Any], *, name: str = "factory") -> nn.Module:
    """A copy of what the user's factory gives: it may give one and the same module each time.

    Raises ModelError where it raises or returns no module.
    """
    try:
        model = factory()
    except Exception as error:
        raise ModelError(
            f"Expected `{name}` to return an nn.Module, but it raised {type(error).__name__}: "
            f"{error}. Fix the function, or its `kwargs`."
        ) from error
    if not isinstance(model, nn.Module):
        hint = (
            " Name a function that builds the model, not its class's module."
            if (type(model).__name__ == "module")
            else ""
        )
        raise ModelError(
            f"Expected `{name}` to return an nn.Module, got {type(model).__name__}.{hint}"
        )
    return model if lazy_layers(model) else copied(model)  # what has no shape cannot be copied


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read a safetensors file of weights onto the CPU.

    Raises ModelError where it is missing, damaged, holds something else, or is a pickle: those run
    code when they are opened, so they are refused with the cure.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"Expected weights at {path}, found no file. Check the path.")
    if path.is_dir():
        raise ModelError(
            f"Expected a safetensors file at {path}, got a folder. A run folder goes under `run`."
        )
    if not _looks_safe(path):
        _refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as archive:
            form = (archive.metadata() or {}).get("format", "")
            names = archive.keys()
            # copies: the file's own pages would change, or vanish, with the file
            state = {name: archive.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"Expected {path.name} to be safetensors, but reading it raised: {error}. The file is "
            "damaged or cut short: copy it again."
        ) from error
    if form.startswith("expunge-statistics"):
        raise ModelError(
            f"Expected {path.name} to hold the weights of a model, got feature statistics. They "
            "go under `statistics` in [data]."
        )
    return state


def _looks_safe(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return len(start) == 9 and start[8:] == b"{" and 8 + length <= path.stat().st_size


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(4)
    pickled = magic[:1] == b"\x80" and magic[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if pickled or magic == b"PK\x03\x04" or path.suffix.lower() in _PICKLES:
        raise ModelError(
            f"Expected weights as safetensors, got {path.name}, a pickle. Pickles can run code "
            "when they are opened. Convert it once, safely: "
            f"`expunge convert {path.name} {path.stem}.safetensors`."
        )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> nn.Module:
    """Copy `state` into `model` and return it; `source` names the file in messages.

    Raises ModelError for missing and unexpected names, other shapes, a dtype that would lose
    digits, and values that are not finite. Step counters of batch norm may be missing, and names
    that are tied to one that is there.
    """
    asleep = lazy_layers(model)
    if asleep:
        raise ModelError(
            f"Expected `factory` to build every layer, got the lazy layer {asleep[0]!r}, which has "
            "seen no row. Let the function run one batch through the model before it returns it."
        )
    own = {k: t for k, t in model.state_dict().items() if isinstance(t, Tensor)}
    state = _with_ties(state, own)
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    if missing or unexpected:
        parts = [f"{len(missing)} missing ({_some(missing)})"] if missing else []
        parts += [f"{len(unexpected)} unexpected ({_some(unexpected)})"] if unexpected else []
        raise ModelError(
            f"Expected the tensors of {source} to fit the model that `factory` builds, got "
            f"{' and '.join(parts)}. {_cure(missing, unexpected)}"
        )
    for name, there in own.items():
        tensor = state.get(name, there)
        if tensor.shape != there.shape:
            raise ModelError(
                f"Expected {name!r} in {source} to have shape {tuple(there.shape)}, got "
                f"{tuple(tensor.shape)}. The model that `factory` builds differs from the one "
                "that was saved (the number of classes?): check its `kwargs`."
            )
        if torch.promote_types(tensor.dtype, there.dtype) != there.dtype:
            raise ModelError(
                f"Expected {name!r} in {source} to fit dtype {there.dtype}, got {tensor.dtype}. "
                "Let `factory` build the model in the dtype it was saved in."
            )
    bad = not_finite(state)
    if bad:
        raise ModelError(
            f"Expected finite weights in {source}, got NaN or infinity in {bad[0]!r} ({len(bad)} "
            "tensors). The checkpoint is damaged or diverged: use an earlier one."
        )
    model.load_state_dict(dict(state), strict=False)
    return model


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _cure(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """The names that come nearest, where some do: the eye sees what separates them."""
    near = [(m, nearest_names(m, unexpected)) for m in missing]
    pairs = [f"{m!r} is missing, {n!r} is there" for m, n in near if n is not None]
    if pairs:
        return (
            f"The nearest names: {'; '.join(pairs[:3])}. Rename them in the file, or let `factory` "
            "build the model with the names that were saved."
        )
    if not missing:
        return "Leave out what is no part of the model, or let `factory` build that part too."
    return "Check that `factory` and its `kwargs` build the architecture that was saved."


def _with_ties(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state`, with the names that the model ties to one that is there."""
    places: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in own.items():
        if name in state and tensor.numel():
            places[tensor.data_ptr(), tensor.shape] = name
    tied = {
        name: state[places[tensor.data_ptr(), tensor.shape]]
        for name, tensor in own.items()
        if name not in state and (tensor.data_ptr(), tensor.shape) in places
    }
    return {**state, **tied}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors; tied tensors are written once a name.

    Non-persistent buffers are left out, as in any state dict: the factory makes them again.
    """
    save_state(_stored_part(model), path)


def to_bytes(model: nn.Module) -> bytes:
    """The bytes of the file that `save_weights` writes; raises ModelError where there can be none.

    `from_bytes` reads them.
    """
    try:
        return save(_packed(_stored_part(model)), metadata=_FORMAT)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(_not_held(error)) from error


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """The tensors in what `to_bytes` gave, on the CPU."""
    return load(data)


def _stored_part(model: nn.Module) -> dict[str, Tensor]:
    return {k: t for k, t in model.state_dict().items() if isinstance(t, Tensor)}


def save_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; views and shared storage become tensors of their own."""
    tensors = _packed(state)
    with writing(path):
        save_file(tensors, path, metadata=_FORMAT)


def _packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with a storage of its own."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        whole = tensor.numel() * tensor.element_size() == storage.nbytes()
        shared = storage.data_ptr() in seen
        tensors[name] = tensor.clone() if shared or not whole else tensor
        seen.add(storage.data_ptr())
    return tensors


def _not_held(error: Exception) -> str:
    return f"Expected tensors that safetensors can hold, but writing them raised: {error}."


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around a safetensors write: the usual file mode, and a full disk seen as an OSError.

    The library hides the number of the operating system's error in a text.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None and "I/O" not in str(error):
            raise ModelError(_not_held(error)) from error
        raise OSError(int(found.group(1)) if found else errno.EIO, str(error)) from error
    path.chmod(stat.S_IMODE(mode))
