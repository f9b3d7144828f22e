"""Readers for the public image sets that the examples, tests and benchmarks use.

Nothing is downloaded: each function is given the folder in which the files lie.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expunge.errors import DataError

__all__ = ["read_idx", "read_mosaics"]

_IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path | str) -> npt.NDArray[np.uint8]:
    """Read one idx file (MNIST, Fashion-MNIST), gzipped or plain; shape as in its header."""
    path = Path(path)
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_DTYPES:
        raise DataError(
            f"Expected `path` to be an idx file, got {path.name} with header {raw[:4]!r}. "
            "Name one of the original MNIST-format files."
        )
    rank = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", rank, 4))
    dtype = np.dtype(_IDX_DTYPES[raw[2]])
    array = np.frombuffer(raw, dtype, offset=4 + 4 * rank)
    if array.size != int(np.prod(shape)):
        raise DataError(
            f"Expected {path.name} to hold {int(np.prod(shape))} values for shape {shape}, "
            f"got {array.size}. The file is cut short: fetch it again."
        )
    return array.reshape(shape).astype(dtype.newbyteorder("="))


def read_mosaics(
    folder: Path | str, part: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read CIFAR images stored as lossless mosaics, with their labels.

    `folder` holds `train_0..4.webp`, `test.webp` (100×100 tiles of 32×32, row by row) and
    `labels.npz`; `part` is "train" or "test". Returns images (n, 32, 32, 3) uint8 and labels (n,).
    """
    from PIL import Image

    if part not in ("train", "test"):
        raise DataError(f'Expected `part` to be "train" or "test", got {part!r}.')
    folder = Path(folder)
    names = [f"train_{i}.webp" for i in range(5)] if part == "train" else ["test.webp"]
    tiles = []
    for name in names:
        with Image.open(folder / name) as image:
            mosaic = np.asarray(image.convert("RGB"))
        tiles.append(mosaic.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10000, 32, 32, 3))
    with np.load(folder / "labels.npz") as labels:
        y = labels[part].astype(np.int64)
    return np.concatenate(tiles), y
