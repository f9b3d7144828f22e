"""Input sensitivity of logits, the MU-Mis loss of it, its gradient and the relative step.

‖∇ₓf_c(x; w)‖² is the squared Frobenius norm of the gradient of one logit with respect to the
whole input of one sample, in the input space the model is given (normalised pixels, not raw ones:
raw pixels scale it by 1/std²). In eval mode no sample sees another, so the gradient of the summed
logits is every sample's own gradient: no loop, no vmap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.methods.mu_mis.twice import differentiable_twice
from expunge.network.answers import as_logits

__all__ = [
    "Loss",
    "SensitivitySums",
    "draw_irrelevant",
    "relative_step",
    "scaled_loss",
    "sensitivities",
    "sensitivity_gradients",
    "summed",
]

_FLOOR = 1e-12

_Mean = TypeVar("_Mean", float, Tensor)


def draw_irrelevant(
    labels: Int[Tensor, " rows"],
    kept: Int[Tensor, " kept"],
    generator: torch.Generator,
) -> Int[Tensor, " rows"]:
    """An irrelevant class a row, stratified: among `kept` without the row's own class.

    Offsets are a shuffled cycle, so that the counts of the offsets differ by at most one; this has
    the smallest variance of the loss among the draws compared.
    """
    own = torch.searchsorted(kept, labels)
    inside = (own < len(kept)) & (kept[own.clamp_max(len(kept) - 1)] == labels)
    out = torch.empty_like(labels)
    for mask, choices in ((inside, len(kept) - 1), (~inside, len(kept))):
        n = int(mask.sum())
        if n == 0:
            continue
        start = int(torch.randint(choices, (1,), generator=generator))
        offsets = (torch.arange(n) + start) % choices
        offsets = offsets[torch.randperm(n, generator=generator)]
        if choices == len(kept):
            out[mask] = kept[offsets]
        else:
            out[mask] = kept[(own[mask] + 1 + offsets) % len(kept)]
    return out


def sensitivities(
    model: nn.Module,
    inputs: Float[Tensor, "rows ..."],
    target: Int[Tensor, " rows"],
    irrelevant: Int[Tensor, " rows"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Float[Tensor, "rows classes"]]:
    """(‖∇ₓf_c‖², ‖∇ₓf_c'‖²) a row and the logits; one forward pass, two backward passes to x."""
    x = inputs.detach().requires_grad_(True)
    norms = []
    with differentiable_twice() as mode:
        logits = as_logits(model(x.clone()))  # the model may write on its input
        mode.inputs_only = True
        for classes in (target, irrelevant):
            (to_x,) = torch.autograd.grad(_picked(logits, classes), x, retain_graph=True)
            norms.append(_squares(to_x))
        mode.inputs_only = False
    return norms[0], norms[1], logits.detach()


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SensitivitySums:
    """Over `rows` rows: Σ‖∇ₓf_c‖² and Σ‖∇ₓf_c'‖², and the gradient of each by the weights.

    The two terms are kept apart, since which of them pay is known only for the whole batch.
    """

    rows: int
    target: float
    irrelevant: float
    to_target: Sequence[Float[Tensor, "*_"]]
    to_irrelevant: Sequence[Float[Tensor, "*_"]]


def sensitivity_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "rows ..."],
    target: Int[Tensor, " rows"],
    irrelevant: Int[Tensor, " rows"],
    parameters: Sequence[nn.Parameter],
) -> SensitivitySums:
    """The sums over one chunk of rows, by double backward; one graph is alive at a time."""
    x = inputs.detach().requires_grad_(True)
    sums: list[Tensor] = []
    gradients: list[list[Tensor]] = []
    with differentiable_twice() as mode:
        logits = as_logits(model(x.clone()))  # the model may write on its input
        for i, classes in enumerate((target, irrelevant)):
            mode.inputs_only = True
            (to_x,) = torch.autograd.grad(
                _picked(logits, classes), x, create_graph=True, retain_graph=True
            )
            total = _squares(to_x).sum()
            mode.inputs_only = False
            found = torch.autograd.grad(total, parameters, retain_graph=i == 0, allow_unused=True)
            gradients.append(
                [
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
            sums.append(total.detach())
            del to_x, total, found
    return SensitivitySums(
        rows=len(x),
        target=float(sums[0]),
        irrelevant=float(sums[1]),
        to_target=gradients[0],
        to_irrelevant=gradients[1],
    )


def summed(
    chunks: Iterable[SensitivitySums], parameters: Sequence[nn.Parameter]
) -> SensitivitySums:
    """The sums over all chunks; one chunk is alive at a time, so that any batch fits in memory."""
    to_target, to_irrelevant = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    rows, target, irrelevant = 0, 0.0, 0.0
    for chunk in chunks:
        for totals, parts in ((to_target, chunk.to_target), (to_irrelevant, chunk.to_irrelevant)):
            for total, part in zip(totals, parts, strict=True):
                total.add_(part)
        rows += chunk.rows
        target += chunk.target
        irrelevant += chunk.irrelevant
    return SensitivitySums(
        rows=rows,
        target=target,
        irrelevant=irrelevant,
        to_target=to_target,
        to_irrelevant=to_irrelevant,
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """L = (T − min(I, `cap`)) / `scale`, for the means T of ‖∇ₓf_c‖² and I of ‖∇ₓf_c'‖².

    The second term is unbounded below: above `cap` (in the units of the norms) it is held there
    and gives no gradient. `cap` = inf and `scale` = 1 is the published loss.
    """

    scale: float
    cap: float

    def pays(self, irrelevant: float | Tensor) -> bool:
        """Whether the irrelevant term still lowers the loss where its mean is this."""
        return bool(irrelevant <= self.cap)

    def value(self, target: _Mean, irrelevant: _Mean) -> _Mean:
        """L of the two means: numbers, or tensors without axes that carry a graph."""
        return (target - (irrelevant if self.pays(irrelevant) else self.cap)) / self.scale

    def of(self, sums: SensitivitySums) -> float:
        """L of the rows that were summed."""
        return self.value(sums.target / sums.rows, sums.irrelevant / sums.rows)

    def gradient(self, sums: SensitivitySums) -> list[Float[Tensor, "*_"]]:
        """∂L/∂w = (Σ∇‖∇ₓf_c‖² − paid·Σ∇‖∇ₓf_c'‖²) / (n·scale), one tensor a weight."""
        paid = self.pays(sums.irrelevant / sums.rows)
        pairs = zip(sums.to_target, sums.to_irrelevant, strict=True)
        return [(t - o if paid else t) / (sums.rows * self.scale) for t, o in pairs]

    def left(self, sums: SensitivitySums) -> float:
        """T / scale: what is left of the target sensitivity, in the units of the loss."""
        return sums.target / (sums.rows * self.scale)


def scaled_loss(target: float, irrelevant: float, *, cap: float | None) -> Loss:
    """The loss of a descent that starts at these means: scale = T₀ (floored), cap = `cap`·I₀."""
    return Loss(scale=max(target, _FLOOR), cap=math.inf if cap is None else cap * irrelevant)


def relative_step(
    weights: Sequence[Float[Tensor, "*_"]],
    gradient: Sequence[Float[Tensor, "*_"]],
    *,
    share: float,
    left: float,
) -> list[Float[Tensor, "*_"]]:
    """Δw_p = −η‖w_p‖² g_p with η = share·left / Σ_p ‖w_p‖²‖g_p‖², one tensor p a weight.

    To first order it lowers the loss by `share`·`left`: ⟨g, Δw⟩ = −share·left. A gradient of zero
    moves nothing.
    """
    norms = [w.square().sum() for w in weights]
    slope = sum(float(n * g.square().sum()) for n, g in zip(norms, gradient, strict=True))
    rate = share * left / slope if slope > 0.0 else 0.0
    return [g * (n * -rate) for n, g in zip(norms, gradient, strict=True)]


def _picked(
    logits: Float[Tensor, "rows classes"], classes: Int[Tensor, " rows"]
) -> Float[Tensor, ""]:
    """The sum over rows of one logit each."""
    return logits.gather(1, classes[:, None]).sum()


def _squares(to_x: Float[Tensor, "rows ..."]) -> Float[Tensor, " rows"]:
    """The squared norm of each row's gradient."""
    return to_x.flatten(1).square().sum(1)
