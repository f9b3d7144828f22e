"""The logits in what a model returns."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from expunge.errors import ModelError

__all__ = ["as_logits"]


def as_logits(output: Any) -> Float[Tensor, "batch classes"]:
    """The logits in a model's output: a tensor, the first item of a tuple, or `.logits`.

    Raises ModelError where there are none, for one output (binary by sign) and for more axes.
    """
    if hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
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
