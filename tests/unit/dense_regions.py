"""The support of a region by its dense rows: the slow law that patched networks are held to."""

import torch

from expunge.patches.regions import ROUNDING


def support(rows, bounds, sharpness, x):
    """max(0, 1 − Σ_j min(1, λ·viol_j)) of points x (m, n): exactly 1 on S, 0 far from it."""
    slack = ROUNDING * (x.abs() @ rows.abs().T + bounds.abs())
    beyond = torch.relu(x @ rows.T - bounds - slack)
    return torch.relu(1.0 - (sharpness * beyond).clamp_max(1.0).sum(1))
