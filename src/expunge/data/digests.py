"""Digests of the content of rows: which inputs are the same, whatever their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from expunge.data.rows import Inputs, Rows

__all__ = ["content_digests", "digested", "digests_of"]


def _row_bytes(value: Tensor) -> npt.NDArray[np.uint8]:
    """The bytes of each row (n, bytes); also for dtypes that numpy does not know."""
    flat = value.detach().cpu().contiguous().reshape(len(value), value.shape[1:].numel())
    return flat.view(torch.uint8).numpy()


def content_digests(rows: Rows, *, batch_size: int = 512) -> Sequence[bytes]:
    """BLAKE2b digest of the content of each row (inputs, not the label), in order.

    Rows that carry their digests are not read.
    """
    if rows.digests is not None:
        return rows.digests
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


def digested(rows: Rows) -> Rows:
    """The same rows with their digests, so that they are read for these once; views keep them."""
    return rows if rows.digests is not None else replace(rows, digests=tuple(content_digests(rows)))
