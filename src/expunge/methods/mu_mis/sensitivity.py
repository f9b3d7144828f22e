"""Input sensitivity of logits, and the MU-Mis loss: squared norms of gradients with respect to x.

‖∇ₓf_c(x; w)‖² is the squared Frobenius norm of the gradient of one logit with respect to the
whole input of one sample, in the input space the model is given (normalised pixels, not raw ones:
raw pixels scale it by 1/std²). In eval mode no sample sees another, so the gradient of the summed
logits is every sample's own gradient: no loop, no vmap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expunge.methods.mu_mis.twice import differentiable_twice
from expunge.network.answers import as_logits

__all__ = ["draw_irrelevant", "mu_mis_loss", "sensitivities", "sensitivity_gradients"]


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
    *,
    graph: bool,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Float[Tensor, "rows classes"]]:
    """(‖∇ₓf_c‖², ‖∇ₓf_c'‖²) a row and the logits; one forward pass, two backward passes to x.

    With `graph` the result can be differentiated by the weights (double backward).
    """
    x = inputs.detach().requires_grad_(True)
    out = []
    with differentiable_twice() as mode:
        logits = as_logits(model(x))
        mode.inputs_only = True
        for classes in (target, irrelevant):
            picked = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(picked, x, create_graph=graph, retain_graph=True)
            out.append(gradient.flatten(1).square().sum(1))
        mode.inputs_only = False
    return out[0], out[1], logits.detach()


def sensitivity_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "rows ..."],
    target: Int[Tensor, " rows"],
    irrelevant: Int[Tensor, " rows"],
    parameters: Sequence[nn.Parameter],
) -> tuple[list[Tensor], list[Tensor], Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Weight gradients of Σ‖∇ₓf_c‖² and of Σ‖∇ₓf_c'‖², kept apart, and both norms a row.

    Sums over rows add up over chunks, so that a batch of any size fits in memory; the two terms
    are weighted when their means over the whole batch are known. One graph is alive at a time.
    """
    x = inputs.detach().requires_grad_(True)
    gradients: list[list[Tensor]] = []
    norms = []
    with differentiable_twice() as mode:
        logits = as_logits(model(x))
        for i, classes in enumerate((target, irrelevant)):
            mode.inputs_only = True
            picked = logits.gather(1, classes[:, None]).sum()
            (to_x,) = torch.autograd.grad(picked, x, create_graph=True, retain_graph=True)
            norm = to_x.flatten(1).square().sum(1)
            mode.inputs_only = False
            found = torch.autograd.grad(
                norm.sum(), parameters, retain_graph=i == 0, allow_unused=True
            )
            gradients.append(
                [
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
            norms.append(norm.detach())
            del picked, to_x, norm, found
    return gradients[0], gradients[1], norms[0], norms[1]


def mu_mis_loss(
    target: Float[Tensor, " rows"],
    irrelevant: Float[Tensor, " rows"],
    scale: float,
    cap: float,
) -> Float[Tensor, ""]:
    """Mean of (‖∇ₓf_c‖² − ‖∇ₓf_c'‖²) / `scale` over the rows.

    The second term is unbounded: where its mean exceeds `cap` (in the units of the norms) it is
    held there and gives no gradient. `cap` = inf is the published loss.
    """
    return (target.mean() - irrelevant.mean().clamp_max(cap)) / scale
