"""Isolated randomness: the caller's global generators are put back, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["derived_seed", "isolated"]


@contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed every global generator with `seed` inside, restore them after; yield a private one.

    The private generator lives on the CPU, so that a seed means the same on every device.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            # Not torch.manual_seed: that would also reseed every accelerator for good.
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield torch.Generator().manual_seed(seed)
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def derived_seed(generator: torch.Generator) -> int:
    """Draw a seed for a part of the work from `generator`."""
    return int(torch.randint(0, 2**31 - 1, (1,), generator=generator))
