"""Readers of the public image sets, on files made here."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from expunge.data.readers import read_idx, read_mosaics
from expunge.errors import DataError


def _idx(array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_idx_round_trip(tmp_path, packed):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / ("images.gz" if packed is gzip.compress else "images")
    path.write_bytes(packed(_idx(array)))
    read = read_idx(path)
    assert np.array_equal(read, array)
    assert read.dtype == np.uint8


def test_idx_refusals(tmp_path):
    (tmp_path / "text").write_bytes(b"not an idx file")
    with pytest.raises(DataError, match="an idx file, got text with header b'not '"):
        read_idx(tmp_path / "text")
    (tmp_path / "short").write_bytes(_idx(np.zeros((4, 4), np.uint8))[:-3])
    with pytest.raises(DataError, match=r"16 values for shape \(4, 4\), got 13"):
        read_idx(tmp_path / "short")


def test_mosaics_are_cut_row_by_row(tmp_path):
    mosaic = np.zeros((3200, 3200, 3), np.uint8)
    mosaic[0:32, 32:64] = 7  # second tile of the first row
    mosaic[32:64, 0:32] = 9  # first tile of the second row
    Image.fromarray(mosaic).save(tmp_path / "test.webp", lossless=True, method=0, quality=0)
    labels = np.arange(10000, dtype=np.uint8) % 10
    np.savez(tmp_path / "labels.npz", test=labels)
    x, y = read_mosaics(tmp_path, "test")
    assert x.shape == (10000, 32, 32, 3)
    assert (x[1] == 7).all()
    assert (x[100] == 9).all()
    assert not x[0].any()
    assert y.dtype == np.int64
    with pytest.raises(DataError, match='"train" or "test", got \'valid\''):
        read_mosaics(tmp_path, "valid")
