"""Digests of the content of rows: which inputs are the same, whatever their ids."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.data.rows import Inputs, Rows

__all__ = ["content_digests", "digests_of"]


def _row_bytes(value: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of each row (n, bytes); also for dtypes that numpy does not know."""
    flat = value.detach().cpu().contiguous().reshape(len(value), value.shape[1:].numel())
    return flat.view(torch.uint8).numpy()


def content_digests(rows: Rows, *, batch_size: int = 512) -> list[bytes]:
    """BLAKE2b digest of the content of each row (inputs, not the label), in order."""
    digests: list[bytes] = []
    for inputs, labels in rows.batches(batch_size):
        digests += digests_of(inputs, len(labels))
    return digests


def digests_of(inputs: Inputs, n: int) -> list[bytes]:
    """BLAKE2b digest of the content of each of the `n` rows of a batch, in order."""
    parts = {"": inputs} if isinstance(inputs, Tensor) else inputs
    arrays = [
        (name, value.dtype, value.shape[1:], _row_bytes(value))
        for name, value in sorted(parts.items())
    ]
    digests: list[bytes] = []
    for i in range(n):
        total = hashlib.blake2b(digest_size=16)
        for name, dtype, shape, content in arrays:
            total.update(f"{name}{dtype}{tuple(shape)}".encode())
            total.update(content[i].tobytes())
        digests.append(total.digest())
    return digests
