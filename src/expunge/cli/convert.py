"""`expunge convert`: a pickled checkpoint becomes safetensors, without running its code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from expunge.cli._console import command
from expunge.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["convert", "plain_state"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema")


def convert(
    source: Path = typer.Argument(help="The checkpoint: .pt, .pth, .ckpt or .bin."),
    target: Path = typer.Argument(help="The safetensors file to write; must not exist."),
) -> None:
    """Convert a pickled checkpoint to safetensors, by safe loading only.

    Unwraps `state_dict`, `model`, `net` and `ema`, and takes the prefixes `module.`, `_orig_mod.`,
    `_module.` and Lightning's `model.` off the names. Other prefixes come off when a job loads the
    weights, by the names of its model.
    """
    with command() as screen:
        from expunge.network.weights import save_state
        from expunge.storage.whole import new_file, refuse_existing

        refuse_existing(target)
        state, notes = plain_state(_loaded(source))
        with new_file(target) as file:
            save_state(state, file)
        for note in notes:
            screen.say(note)
        screen.say(f"{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values")
        screen.result(str(target))
        screen.then(f'put weights = "{target.name}" under [model] in your job file')


def _loaded(source: Path) -> Any:
    import torch

    if not source.is_file():
        raise ModelError(f"Expected a checkpoint at {source}, found no file. Check the path.")
    if source.suffix == ".safetensors":
        raise ModelError(
            f"Expected a pickled checkpoint, got {source.name}: it is safe already. "
            "Name it in a job as it is: prefixes of wrappers come off when it is loaded."
        )
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"Expected {source.name} to hold plain tensors, but safe loading raised "
            f"{type(error).__name__}: {first} A checkpoint that pickles whole objects can run code "
            "when it is opened, so it is refused. Where you trust its origin, load it yourself and "
            "save `model.state_dict()` alone."
        ) from error


def plain_state(loaded: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by bare name, and sentences about what was unwrapped.

    Raises ModelError where anything but a tensor is in the state dict.
    """
    from torch import Tensor

    notes: list[str] = []
    wrapped = False
    while isinstance(loaded, Mapping):
        key = next((k for k in _WRAPPERS if isinstance(loaded.get(k), Mapping)), None)
        if key is None:
            break
        left = [str(k) for k in loaded if k != key]
        loaded, wrapped = loaded[key], True
        notes.append(f"unwrapped {key!r}" + (f"; left out: {', '.join(left)}" if left else ""))
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(
            f"Expected a state dict (names to tensors), got {type(loaded).__name__}. Save "
            "`model.state_dict()`."
        )
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"Expected tensors only, got {type(value).__name__} under {name!r}. Save "
                "`model.state_dict()` alone."
            )
        if value.layout is not _strided() or value.is_quantized:
            raise ModelError(
                f"Expected dense floating or integer tensors, got {name!r} sparse or quantised. "
                "Save the model before quantising it."
            )
    return _bare({str(k): v.detach() for k, v in loaded.items()}, wrapped=wrapped, notes=notes)


def _strided() -> Any:
    import torch

    return torch.strided


def _bare(
    state: dict[str, Tensor], *, wrapped: bool, notes: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Take wrapper prefixes off; `model.` only inside `state_dict`, as Lightning writes it."""
    prefixes = ("module.", "_orig_mod.", "_module.") + (("model.",) if wrapped else ())
    moved = True
    while moved:
        moved = False
        for prefix in prefixes:
            if all(name.startswith(prefix) and name != prefix for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                notes.append(f"took the prefix {prefix!r} off every name")
                moved = True
    inside = {name.replace("._orig_mod.", "."): value for name, value in state.items()}
    if len(inside) == len(state) and inside.keys() != state.keys():
        notes.append("took '_orig_mod.' out of names")
        state = inside
    return state, notes
