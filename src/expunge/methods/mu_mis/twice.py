"""Operators whose double backward is cheap, switched in for the duration of one loss.

Three built-in double backward formulas cost far more than the mathematics asks for. The weight
gradient of a convolution's input gradient is computed as a strange convolution over the batch;
here it is the ordinary weight gradient, by ⟨v, convᵀ(g, W)⟩ = ⟨conv(v, W), g⟩. ReLU sends an
all-zero gradient back through the whole forward pass; here its mask is a constant. Batch norm in
eval mode is x·a + b. Hard sigmoid and hard swish, which have no double backward in some versions of
torch, are written in pieces that have one. Values and derivatives are those of the originals up to
rounding. Reentrant checkpoints, which no gradient with respect to an input passes, run their part
as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

__all__ = ["DoubleBackward", "differentiable_twice"]

_Geometry = tuple[Sequence[int], Sequence[int], Sequence[int], int]


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    zero = [0] * len(stride)
    return torch.ops.aten.convolution(
        x, weight, bias, stride, padding, dilation, False, zero, groups
    )


def _convolve_back(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = geometry
    zero = [0] * len(stride)
    out = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, zero, groups, [*wanted, False]
    )
    return out[0], out[1]


def _apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    return function.apply(*args)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, mode: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.mode, ctx.has_bias = geometry, mode, bias is not None
        return _convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = _apply(_InputGradient, grad, weight, x.detach(), ctx.geometry)
        if not ctx.mode.inputs_only:
            if ctx.needs_input_grad[1]:
                to_weight = _apply(_WeightGradient, grad, x, weight.detach(), ctx.geometry)
            if ctx.has_bias and ctx.needs_input_grad[2]:
                to_bias = grad.sum((0, *range(2, grad.ndim)))
        return to_x, to_weight, to_bias, None, None


class _InputGradient(torch.autograd.Function):
    """convᵀ(g, W), linear in both; `shape` lends its shape only, and comes without a graph."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, weight: Tensor, shape: Tensor, geometry: _Geometry
    ) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
        found = _convolve_back(grad, shape, weight, geometry, (True, False))[0]
        assert found is not None
        return found

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        grad, weight = ctx.saved_tensors
        to_grad = to_weight = None
        if ctx.needs_input_grad[0]:
            to_grad = _convolve(v, weight, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_weight = _convolve_back(grad, v, weight, ctx.geometry, (False, True))[1]
        return to_grad, to_weight, None, None


class _WeightGradient(torch.autograd.Function):
    """The weight gradient, linear in g and x; `shape` lends its shape only, without a graph."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, shape: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.geometry = geometry
        found = _convolve_back(grad, x, shape, geometry, (False, True))[1]
        assert found is not None
        return found

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        grad, x = ctx.saved_tensors
        to_grad = to_x = None
        if ctx.needs_input_grad[0]:
            to_grad = _convolve(x, v, None, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_x = _convolve_back(grad, x, v, ctx.geometry, (True, False))[0]
        return to_grad, to_x, None, None


def _tuple(value: int | Sequence[int], n: int) -> Sequence[int]:
    return [value] * n if isinstance(value, int) else list(value)


_RELU = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu_)
_RELU_INPLACE = (torch.relu_, Tensor.relu_, F.relu_)
_SIGMOID = (F.hardsigmoid, torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_)
_SWISH = (F.hardswish, torch._C._nn.hardswish, torch._C._nn.hardswish_)
_HARD_INPLACE = (torch._C._nn.hardsigmoid_, torch._C._nn.hardswish_)


def _hard_sigmoid(x: Tensor) -> Tensor:
    """clip(x/6 + 1/2, 0, 1), with no slope at the ends, as torch has it."""
    between = ((x.detach() > -3) & (x.detach() < 3)).to(x.dtype)
    return (x / 6 + 0.5) * between + (x.detach() >= 3).to(x.dtype)


_CONVOLUTION = (torch.conv1d, torch.conv2d, torch.conv3d)


@final
class DoubleBackward(TorchFunctionMode):
    """Replaces convolution, ReLU and frozen batch norm while active.

    Set `inputs_only` while gradients are taken with respect to the input alone, so that no weight
    gradient is computed for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs_only = False

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _CONVOLUTION:
            return self._convolution(func, list(args), kwargs)
        if func in _RELU:
            x = args[0] if args else kwargs["input"]
            mask = (x.detach() > 0).to(x.dtype)
            inplace = func in _RELU_INPLACE or kwargs.get("inplace", False) or args[1:] == (True,)
            return x.mul_(mask) if inplace else x * mask
        if func in _SIGMOID or func in _SWISH:
            x = args[0] if args else kwargs["input"]
            inplace = func in _HARD_INPLACE or kwargs.get("inplace", False) or args[1:] == (True,)
            old = x.clone() if inplace else x
            found = _hard_sigmoid(old) if func in _SIGMOID else old * _hard_sigmoid(old)
            return x.copy_(found) if inplace else found
        if func is F.batch_norm:
            return self._batch_norm(func, list(args), kwargs)
        return func(*args, **kwargs)

    def _convolution(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        x, padding = given["input"], given.get("padding", 0)
        n = given["weight"].ndim - 2
        if isinstance(padding, str) or x.ndim != n + 2:
            return func(*args, **kwargs)
        geometry = (
            _tuple(given.get("stride", 1), n),
            _tuple(padding, n),
            _tuple(given.get("dilation", 1), n),
            given.get("groups", 1),
        )
        return _apply(_Convolution, x, given["weight"], given.get("bias"), geometry, self)

    def _batch_norm(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        mean, variance = given.get("running_mean"), given.get("running_var")
        if given.get("training", False) or mean is None or variance is None:
            return func(*args, **kwargs)
        x = given["input"]
        factor = torch.rsqrt(variance + (args[7] if len(args) > 7 else kwargs.get("eps", 1e-5)))
        if given.get("weight") is not None:
            factor = factor * given["weight"]
        shift = -mean * factor
        if given.get("bias") is not None:
            shift = shift + given["bias"]
        shape = (1, -1, *([1] * (x.ndim - 2)))
        return torch.addcmul(shift.view(shape), x, factor.view(shape))


@contextmanager
def differentiable_twice() -> Iterator[DoubleBackward]:
    """Inside: cheap double backward, and attention by the math kernel (fused ones have none)."""
    with sdpa_kernel(SDPBackend.MATH), _without_checkpoints(), DoubleBackward() as mode:
        yield mode


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    """Reentrant checkpoints run their part and keep what it needs: the same values."""

    def run(function: Any, preserve: bool, *args: Any) -> Any:
        del preserve
        return function(*args)

    CheckpointFunction.apply = staticmethod(run)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del CheckpointFunction.apply
