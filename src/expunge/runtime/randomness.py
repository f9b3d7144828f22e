"""Isolated randomness: the caller's global generators are put back, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["isolated", "preserved"]


@contextmanager
def preserved() -> Iterator[None]:
    """Put every global generator back on leaving; also usable as a decorator.

    Around a whole door, since reading a user's data set may draw from them too. Gradients work
    inside, also where the caller has switched them off (`no_grad`, `inference_mode`).
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed every global generator with `seed` inside, restore them after; yield a private one.

    The private generator lives on the CPU, so that a seed means the same on every device.
    """
    with preserved():
        # Not torch.manual_seed: that would also reseed accelerators that are not in use.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield torch.Generator().manual_seed(seed)
