"""Rows whose labels are noise, of which a net can only learn by heart, and as many unseen ones."""

import torch

from expunge.records import Limits

LOOSE = Limits(mean_drop=10.0, mean_bound=20.0, worst_drop=30.0)
"""Accuracy on labels that are noise is chance, and moves by chance."""


def unseen(rows, count, *, classes=5, seed=4):
    """`count` rows spread like these, with labels drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(rows), (count,), generator=generator)
    moved = rows[places] + 0.3 * torch.randn(count, rows.shape[1], generator=generator)
    return moved, torch.randint(classes, (count,), generator=generator)
