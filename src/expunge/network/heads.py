"""Find the final linear layer of a classifier, and read the features that enter it.

The head is the `nn.Linear` whose output *is* the logits. Its rows are the class prototypes; its
input h (batch, d) are the penultimate features. Everything else is the backbone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from expunge.data.rows import Inputs
from expunge.errors import ModelError
from expunge.network.answers import as_logits
from expunge.network.calls import frozen_statistics, tried
from expunge.network.folding import folding
from expunge.network.rounding import apart
from expunge.network.state import digest_of, state_of
from expunge.patches.heads import PATCH_NAMES, GatedLinear, NarrowLinear

__all__ = ["Head", "backbone_digest", "find_head", "head_at", "head_matrix", "set_head_matrix"]


@final
@dataclass(frozen=True, slots=True)
class Head:
    """Where the final linear layer is: module name, feature dimension d, classes K, bias or not.

    `kind` says whether it is a plain layer, or one that carries gates or lacks removed classes.
    """

    name: str
    features: int
    classes: int
    has_bias: bool
    kind: Literal["plain", "gated", "narrow"] = "plain"

    def of(self, model: nn.Module) -> nn.Linear:
        """The linear layer inside `model`."""
        module = model.get_submodule(self.name)
        if not isinstance(module, nn.Linear):
            raise ModelError(
                f"Expected the head {self.name!r} to be nn.Linear, got {type(module).__name__}."
            )
        return module

    def tensor_names(self) -> set[str]:
        """Names of the head's tensors in the state of the model."""
        prefix = f"{self.name}." if self.name else ""
        return {f"{prefix}{own}" for own in ("weight", "bias", *PATCH_NAMES)}


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    seen: list[tuple[str, Tensor, Tensor]] = []
    handles = []

    def note(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                seen.append((name, args[0].detach().clone(), output.detach().clone()))

        return hook

    try:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                handles.append(module.register_forward_hook(note(name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def find_head(model: nn.Module, inputs: Inputs, *, name: str | None = None) -> Head:
    """Find the linear layer whose output is the logits, by running `inputs` once in eval mode.

    `name` fixes it where several qualify. Raises ModelError where there is none, where the model
    changes its output afterwards (softmax, temperature), where the layer reads tokens instead of
    one vector a row, and where its weight is tied to another module or made from other tensors.
    Any subclass of nn.Linear serves that owns weight and bias and gives Wh + b.
    """
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    if name is not None and name not in linears:
        raise ModelError(
            f"Expected `head` to name an nn.Linear of the model, got {name!r}; there are "
            f"{_listed(linears)}."
        )
    with frozen_statistics(model), _watching(model) as seen, torch.no_grad():
        logits = as_logits(tried(model, inputs))
        matches = [(n, h) for n, h, z in seen if z.shape == logits.shape and torch.equal(z, logits)]
    if name is not None:
        matches = [m for m in matches if m[0] == name]
    if not matches:
        asked = f"the layer {name!r}" if name is not None else "some nn.Linear layer"
        raise ModelError(
            f"Expected the output of {asked} to be the logits that the model returns, got no "
            f"match among {_listed(linears)}. Methods that edit the head need a final nn.Linear "
            f"with nothing after it. {folding(model, seen, logits)}"
        )
    found, features = matches[-1]
    if features.ndim != 2:
        raise ModelError(
            f"Expected one feature vector a row at the head {found!r}, got shape "
            f"{tuple(features.shape)}."
        )
    layer = linears[found]
    _refuse_derived(found, layer)
    names = [n for n, p in model.named_parameters(remove_duplicate=False) if p is layer.weight]
    if len(names) > 1:
        raise ModelError(
            f"Expected the head {found!r} to own a plain weight, got one that is tied to "
            f"another module ({', '.join(names)}). Untie it first: "
            f"{_place(found)}.weight = nn.Parameter({_place(found)}.weight.detach().clone())."
        )
    if type(layer) not in _KINDS and not _is_linear(layer, features, logits):
        raise ModelError(
            f"Expected the head {found!r} to give Wh + b of its own weight and bias, but its class "
            f"{type(layer).__name__} gives something else. Put a plain nn.Linear there, with "
            "nothing after it."
        )
    return head_at(found, layer)


def _is_linear(layer: nn.Linear, features: Tensor, logits: Tensor) -> bool:
    """Whether the layer's output is Wh + b, up to rounding."""
    weight, bias = layer.weight.detach().double(), layer.bias
    own = features.double() @ weight.T + (0.0 if bias is None else bias.detach().double())
    return not apart(logits, own.to(logits.dtype))


def _refuse_derived(name: str, layer: nn.Linear) -> None:
    """Raise ModelError where weight or bias is made from other tensors at each pass."""
    for what in ("weight", "bias"):
        if getattr(layer, what, None) is None or what in layer._parameters:
            continue
        by, cure = _derivation(what, layer, _place(name))
        raise ModelError(
            f"Expected the head {name!r} to own its {what}, got one that is made anew at each pass "
            f"by {by}: an edit of it would be lost. Make it a plain parameter first: {cure}. For a "
            "job let the factory build the plain layer, and save the weights again."
        )


def _derivation(what: str, layer: nn.Linear, place: str) -> tuple[str, str]:
    """What makes a weight or bias from other tensors, and the line that ends it."""
    utils, names = "torch.nn.utils", {*layer._parameters, *layer._buffers}
    if parametrize.is_parametrized(layer, what):
        parts = layer.get_submodule(f"parametrizations.{what}").children()
        kinds = ", ".join(type(m).__name__.lstrip("_") for m in parts)
        cure = f'{utils}.parametrize.remove_parametrizations({place}, "{what}")'
        return f"a parametrisation ({kinds})", f"`{cure}`"
    if f"{what}_mask" in names:
        return "a pruning mask", f'`{utils}.prune.remove({place}, "{what}")`'
    if f"{what}_g" in names:
        return "weight_norm", f'`{utils}.remove_weight_norm({place}, "{what}")`'
    if f"{what}_u" in names:
        return "spectral_norm", f'`{utils}.remove_spectral_norm({place}, "{what}")`'
    return f"its class {type(layer).__name__}", "put a plain nn.Linear with its value there"


def _place(name: str) -> str:
    return f'model.get_submodule("{name}")' if name else "model"


_KINDS: dict[type[nn.Linear], Literal["plain", "gated", "narrow"]] = {
    nn.Linear: "plain",
    GatedLinear: "gated",
    NarrowLinear: "narrow",
}


def head_at(name: str, layer: nn.Linear) -> Head:
    """The description of a linear layer as the head."""
    classes = layer.classes if isinstance(layer, NarrowLinear) else layer.out_features
    kind = _KINDS.get(type(layer), "plain")
    return Head(name, layer.in_features, classes, layer.bias is not None, kind)


def _listed(linears: dict[str, nn.Linear]) -> str:
    names = [n or "(the model itself)" for n in linears]
    return ", ".join(names[-8:]) if names else "no nn.Linear at all"


def backbone_digest(model: nn.Module, head: Head) -> str:
    """SHA-256 of everything below the head (recipe `sha256-state-v1`)."""
    own = head.tensor_names()
    return digest_of({n: t for n, t in state_of(model).items() if n not in own})


def head_matrix(model: nn.Module, head: Head) -> Float[Tensor, "classes features+1"]:
    """A = [W, b] in float64 on the CPU; b is zero for a head without bias."""
    layer = head.of(model)
    weight = layer.weight.detach().cpu().double()
    bias = (
        layer.bias.detach().cpu().double()
        if layer.bias is not None
        else torch.zeros(len(weight), dtype=torch.float64)
    )
    return torch.cat([weight, bias[:, None]], dim=1)


def set_head_matrix(
    model: nn.Module, head: Head, matrix: Float[Tensor, "classes features+1"]
) -> None:
    """Write A = [W, b] back in the layer's own dtype and place; rows unchanged stay bit-equal."""
    layer = head.of(model)
    old = head_matrix(model, head)
    moved = matrix != old
    with torch.no_grad():
        weight = matrix[:, :-1].to(layer.weight)
        layer.weight.copy_(torch.where(moved[:, :-1].to(weight.device), weight, layer.weight))
        if layer.bias is not None:
            bias = matrix[:, -1].to(layer.bias)
            layer.bias.copy_(torch.where(moved[:, -1].to(bias.device), bias, layer.bias))
        elif bool(moved[:, -1].any()):
            raise ModelError(
                f"Expected the head {head.name!r} to have a bias for this edit, got none."
            )
