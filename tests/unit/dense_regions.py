"""Regions by their dense rows: the slow law that patched networks are held to."""

from types import SimpleNamespace

import torch

from expunge.methods.prune.published.regions import region
from expunge.patches.regions import ROUNDING


def support(rows, bounds, sharpness, x):
    """max(0, 1 − Σ_j min(1, λ·viol_j)) of points x (m, n): exactly 1 on S, 0 far from it."""
    slack = ROUNDING * (x.abs() @ rows.abs().T + bounds.abs())
    beyond = torch.relu(x @ rows.T - bounds - slack)
    return torch.relu(1.0 - (sharpness * beyond).clamp_max(1.0).sum(1))


def dense_region(layers, x):
    """`region(layers, x)` with the rows and bounds of S = {x : A x ≤ b} beside it.

    Rows are scaled to ‖a‖₁ = 1. Bounds are never below the row at `x`: x lies in S, also after
    rounding.
    """
    found, point = region(layers, x), x.double()
    slope, offset = (part.double() for part in layers[0])
    jacobian, height, start = [], [], 0
    for weight, bias in layers[1:]:
        jacobian.append(slope)
        height.append(offset)
        on = found.active[start : start + len(slope)]
        start += len(slope)
        slope, offset = weight.double() * on @ slope, weight.double() * on @ offset + bias.double()
    sign = torch.where(found.active, -1.0, 1.0).double()
    rows = torch.cat(jacobian) * (sign / found.norms)[:, None]
    bounds = torch.maximum(-torch.cat(height) * sign / found.norms, rows @ point)
    return SimpleNamespace(
        rows=rows,
        bounds=bounds,
        slope=found.slope,
        offset=found.offset,
        active=found.active,
        norms=found.norms,
    )
