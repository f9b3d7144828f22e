"""Read a plain ReLU MLP as a list of matrices, and prove it by its own outputs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from expunge.errors import ModelError
from expunge.network.answers import as_logits
from expunge.network.calls import frozen_statistics, tried
from expunge.network.state import device_of

__all__ = ["mlp_layers"]

_HARMLESS = (nn.Flatten, nn.ReLU, nn.Identity, nn.Dropout, nn.Sequential)


def mlp_layers(
    model: nn.Module, inputs: Shaped[Tensor, "rows ..."]
) -> list[tuple[Float[Tensor, "out in"], Float[Tensor, " out"]]]:
    """(weight, bias) of a ReLU MLP in forward order, float64 on the CPU; logits last.

    The model may nest nn.Linear, nn.ReLU, nn.Flatten and dropout as it likes; what is read is run
    on `inputs` and on −8 times them and must give the model's own logits to 1e-5. Raises ModelError
    for any other layer, for no hidden layer, and where the outputs differ.
    """
    layers: list[tuple[Tensor, Tensor]] = []
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            weight = module.weight.detach().cpu().double()
            bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
            layers.append((weight, bias.cpu().double()))
        elif next(module.children(), None) is None and not isinstance(module, _HARMLESS):
            raise ModelError(
                "Expected an MLP of nn.Linear and nn.ReLU for the published mode, got "
                f"{type(module).__name__} at {name or 'the model itself'!r}. Use the gated or "
                "merged form, which serve every model with a linear head."
            )
    if len(layers) < 2:
        raise ModelError(
            f"Expected an MLP with a hidden ReLU layer, got {len(layers)} nn.Linear. Regions exist "
            "between ReLUs only; use the gated or merged form."
        )
    for probe in (inputs, -8 * inputs):
        with frozen_statistics(model), torch.no_grad():
            own = as_logits(tried(model, probe.to(device_of(model)))).cpu().double()
        flat = probe.cpu().flatten(1).double()
        fits = flat.shape[1] == layers[0][0].shape[1]
        read = _run(layers, flat) if fits else None
        if read is None or read.shape != own.shape or not _close(read, own):
            found = " → ".join(str(w.shape[1]) for w, _ in layers) + f" → {len(layers[-1][0])}"
            raise ModelError(
                "Expected the model to be the plain ReLU MLP that its linear layers make "
                f"({found}), but its logits differ from that MLP's on the given rows. The "
                "published mode cannot serve other activations, orders, skips or half precision; "
                "use the gated or merged form."
            )
    return layers


def _run(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor | None:
    for i, (weight, bias) in enumerate(layers):
        if x.shape[1] != weight.shape[1]:
            return None
        x = (torch.relu(x) if i else x) @ weight.T + bias
    return x


def _close(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).abs().max() <= 1e-5 * two.abs().max())
