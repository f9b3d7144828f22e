"""Read a plain ReLU MLP from its modules, and prove the reading by the model's own logits.

Plain means: the model has no modules but nn.Linear, nn.ReLU, nn.Flatten, nn.Dropout, nn.Identity
and nn.Sequential at the end of the tree, and is its linear layers in the order of registration with
a ReLU between each two. How they are nested does not matter, and no module says where a ReLU runs:
so what was read is tried on rows, as exactly as the caller asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expunge.certificate.facts import Layer
from expunge.data.rows import Rows
from expunge.errors import ModelError
from expunge.network.answers import as_logits
from expunge.network.calls import frozen_statistics, tried
from expunge.network.heads import Head
from expunge.network.state import device_of
from expunge.patches.heads import GatedLinear

__all__ = ["PlainMlp", "bit_for_bit", "layers_before", "read_mlp", "within_1e_5"]

_HARMLESS = (nn.Flatten, nn.ReLU, nn.Identity, nn.Dropout, nn.Sequential)


@final
@dataclass(frozen=True, slots=True, eq=False)
class PlainMlp:
    """Linear layers in forward order with their names, a ReLU between each two; logits last."""

    names: tuple[str, ...]
    linears: tuple[nn.Linear, ...]

    def matrices(self) -> list[tuple[Float[Tensor, "out in"], Float[Tensor, " out"]]]:
        """(weight, bias) of each layer, float64 on the CPU; a missing bias is zero."""
        return [
            (
                linear.weight.detach().cpu().double(),
                torch.zeros(linear.out_features, dtype=torch.float64)
                if linear.bias is None
                else linear.bias.detach().cpu().double(),
            )
            for linear in self.linears
        ]

    def sizes(self) -> str:
        """The widths from the input to the logits, as in 12 → 8 → 4."""
        widths = [linear.in_features for linear in self.linears]
        return " → ".join(str(n) for n in (*widths, self.linears[-1].out_features))


def read_mlp(
    model: nn.Module, inputs: Tensor, accept: Callable[[nn.Module, PlainMlp, Tensor], bool]
) -> PlainMlp:
    """The layers of a plain ReLU MLP, as `accept` (`bit_for_bit`, `within_1e_5`) takes them.

    Raises ModelError for any other layer, for no hidden layer, and where `accept` says that the
    layers do not give the model's logits on the rows `inputs`.
    """
    mlp = _walked(model)
    if not accept(model, mlp, inputs):
        raise ModelError(
            "Expected the model to be the plain ReLU MLP that its linear layers make "
            f"({mlp.sizes()}), but its logits differ from that MLP's on the given rows. Patches on "
            "linear regions cannot serve other activations, orders, skips or half precision; use "
            "`prune`."
        )
    return mlp


def bit_for_bit(model: nn.Module, mlp: PlainMlp, inputs: Tensor) -> bool:
    """Whether the layers, run one after another as they are, give exactly the model's logits."""
    value = inputs.to(device_of(model))
    with frozen_statistics(model), torch.no_grad():
        logits = as_logits(tried(model, value))
        value = value.flatten(1)
        for i, linear in enumerate(mlp.linears):
            if (value.shape[1], value.dtype) != (linear.in_features, linear.weight.dtype):
                return False  # branches, rows of tokens, mixed precision
            value = linear(value.relu() if i else value)
    return torch.equal(value, logits)


def within_1e_5(model: nn.Module, mlp: PlainMlp, inputs: Tensor) -> bool:
    """Whether the layers in float64 give the model's logits to 1e-5 of the largest.

    Tried on the inputs and on −8 times them, where most ReLUs are on the other side.
    """
    return all(_close(model, mlp, probe) for probe in (inputs, -8 * inputs))


def _close(model: nn.Module, mlp: PlainMlp, inputs: Tensor) -> bool:
    with frozen_statistics(model), torch.no_grad():
        logits = as_logits(tried(model, inputs.to(device_of(model)))).cpu().double()
    value = inputs.cpu().flatten(1).double()
    for i, (weight, bias) in enumerate(mlp.matrices()):
        if value.shape[1] != weight.shape[1]:
            return False
        value = (torch.relu(value) if i else value) @ weight.T + bias
    fits = value.shape == logits.shape
    return fits and bool((value - logits).abs().max() <= 1e-5 * logits.abs().max())


def _walked(model: nn.Module) -> PlainMlp:
    """The linear layers, the last with gates or without; ModelError for other modules."""
    found: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear or isinstance(module, GatedLinear):
            found[name] = module
        elif next(module.children(), None) is None and not isinstance(module, _HARMLESS):
            raise ModelError(
                "Expected an MLP of nn.Linear and nn.ReLU for patches on linear regions, got "
                f"{type(module).__name__} at {name or 'the model itself'!r}. Use `prune`, which "
                "serves every model with a linear head."
            )
    if len(found) < 2:
        raise ModelError(
            f"Expected an MLP with a hidden ReLU layer, got {len(found)} nn.Linear. Regions exist "
            "between ReLUs only; use `prune`."
        )
    return PlainMlp(tuple(found), tuple(found.values()))


def layers_before(model: nn.Module, head: Head, rows: Rows) -> tuple[Layer, ...]:
    """The layers before the head of a plain float32 ReLU MLP, or none for any other model.

    Tried on two rows, bit for bit.
    """
    probe, _ = rows.batch(torch.arange(min(2, len(rows))))
    if not isinstance(probe, Tensor) or probe.dtype != torch.float32:
        return ()
    try:
        mlp = read_mlp(model, probe, bit_for_bit)
    except ModelError:
        return ()
    stored = model.state_dict()
    layers: list[Layer] = []
    for name, linear in zip(mlp.names[:-1], mlp.linears[:-1], strict=True):
        layer = Layer(
            op="linear",
            weight=f"{name}.weight",
            bias=None if linear.bias is None else f"{name}.bias",
        )
        if any(n is not None and n not in stored for n in (layer.weight, layer.bias)):
            return ()  # made from other tensors at every call
        layers += [layer, Layer(op="relu")]
    return tuple(layers) if mlp.names[-1] == head.name else ()
