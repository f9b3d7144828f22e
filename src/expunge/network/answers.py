"""The logits in what a model returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from expunge.errors import ModelError

__all__ = ["as_logits"]


def as_logits(output: Any) -> Float[Tensor, "batch classes"]:
    """The logits in a model's output: a tensor, the one such item of a tuple, or `.logits`.

    Raises ModelError where there are none, where several items of a tuple may be the logits, for
    one output (binary by sign) and for more axes.
    """
    if hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    elif isinstance(output, (tuple, list)) and output:
        output = _one_of(output)
    if not isinstance(output, Tensor):
        raise ModelError(
            "Expected the model to return logits as a tensor, a tuple or `.logits`, got "
            f"{type(output).__name__}. Wrap the model so that it does."
        )
    if output.ndim != 2:
        raise ModelError(
            f"Expected logits of shape (batch, classes), got {tuple(output.shape)}. Token and "
            "pixel classifiers are not supported."
        )
    if output.shape[1] < 2:
        raise ModelError(
            "Expected at least two logits a row, got one. Give a binary classifier two outputs "
            "(0 and z) to use it here."
        )
    return output


def _one_of(items: Sequence[Any]) -> Any:
    """The one item of shape (batch, at least 2) among floats; the first where there is none."""
    fit = [
        (n, t)
        for n, t in enumerate(items)
        if isinstance(t, Tensor) and t.is_floating_point() and t.ndim == 2 and t.shape[1] > 1
    ]
    if len(fit) > 1:
        shapes = ", ".join(f"{tuple(t.shape)} at {n}" for n, t in fit)
        raise ModelError(
            f"Expected one item of the model's output to be the logits, got {shapes}: which of "
            "them are the logits cannot be told. Wrap the model so that it returns them alone, as "
            "by a subclass with `def forward(self, x): return super().forward(x)[n]`."
        )
    return fit[0][1] if fit else items[0]
