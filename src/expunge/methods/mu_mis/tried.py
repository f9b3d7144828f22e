"""One row through the loss of MU-Mis before work: what has no second derivative is named."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from expunge.errors import UnsupportedError
from expunge.methods.mu_mis.sensitivity import sensitivity_gradients
from expunge.network.calls import to_device
from expunge.network.copying import copied
from expunge.network.state import device_of

__all__ = ["refuse_once_differentiable"]


def refuse_once_differentiable(model: nn.Module, inputs: Tensor) -> None:
    """Raise UnsupportedError where the loss of one row has no gradient by the weights."""
    own = copied(model).eval()
    parameters = [p for p in own.parameters() if p.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    row = to_device(inputs, device_of(own))
    assert isinstance(row, Tensor)
    first = torch.zeros(len(row), dtype=torch.int64, device=row.device)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            sensitivity_gradients(own, row.clone(), first, first + 1, parameters)
    except (RuntimeError, NotImplementedError) as error:
        raise UnsupportedError(
            f"Expected a model that can be differentiated twice for mu-mis, got {_what(error)}. "
            "Put operators there that have a second derivative, or use another method (for a "
            "class: prune, prototype-surgery, fine-tune)."
        ) from error


def _what(error: Exception) -> str:
    """The operator that has no second derivative, or what was raised."""
    found = re.search(r"derivative for '?(?:aten::)?_?(\w+?)_backward'? is not", str(error))
    if found is not None:
        return f"the operator {found.group(1)!r}, whose second derivative torch does not have"
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"
