"""Heads that are no final linear layer but fold into one exactly: what stands after the layer.

The lines to write are on the page `docs/heads.md`, whose code the tests run.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from expunge.network.rounding import apart

__all__ = ["PAGE", "folding"]

PAGE = "docs/heads.md"

_NOTHING = "Return its output, not a softmax of it or anything else."


def folding(model: nn.Module, seen: Sequence[tuple[str, Tensor, Tensor]], logits: Tensor) -> str:
    """What to do where the model's logits are the output of no linear layer, in a sentence or two.

    `seen` are the linear layers of one pass in order: name, input, output.
    """
    near = [(n, z) for n, _, z in seen if z.shape == logits.shape]
    cures = [_after(n, z, logits) for n, z in reversed(near)]
    cures += [_averaged(near, logits), _convolution(model, logits)]
    cure = next((c for c in cures if c is not None), _NOTHING)
    return f"{cure} Heads that fold into one exactly, with the lines to write: {PAGE}."


def _after(name: str, z: Tensor, logits: Tensor) -> str | None:
    """What was done to the output of one layer."""
    layer = f"the layer {name!r}" if name else "the linear layer"
    if not apart(logits, z.log_softmax(1)):
        return (
            f"The logits are log_softmax of {layer}: return its output, not a softmax of it; the "
            "probabilities stay the same."
        )
    if not apart(logits, z.softmax(1)):
        return f"The model returns a softmax of {layer}: return its output, not a softmax of it."
    top = z.abs().argmax()
    factor = float(logits.flatten()[top] / z.flatten()[top])
    if not apart(logits, factor * z):
        place = f'model.get_submodule("{name}")' if name else "model"
        return (
            f"The logits are {factor:.6g} times the output of {layer}: multiply its weight and "
            f"bias by that factor ({place}.weight.data *= factor, and .bias.data), and return its "
            "output."
        )
    return None


def _averaged(near: Sequence[tuple[str, Tensor]], logits: Tensor) -> str | None:
    if len(near) < 2 or apart(logits, (near[-2][1] + near[-1][1]) / 2):
        return None
    return (
        f"The logits are the mean of the layers {near[-2][0]!r} and {near[-1][0]!r}: where both "
        "read the same features, one layer with the mean of their weights and biases serves."
    )


def _convolution(model: nn.Module, logits: Tensor) -> str | None:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for name, module in reversed(list(model.named_modules())):
        if not isinstance(module, kinds) or module.out_channels != logits.shape[1]:
            continue
        if set(module.kernel_size) == {1} and module.groups == 1:
            return (
                f"The layer {name!r} is a 1×1 convolution: with nothing but a mean over the "
                "positions after it, average first and put an nn.Linear with its weights there."
            )
    return None
