"""Views of labelled rows, and readers of public image sets."""

from __future__ import annotations

from expunge.data.items import Fields
from expunge.data.npz import read_npz
from expunge.data.readers import read_idx, read_mosaics
from expunge.data.rows import Rows
from expunge.data.views import as_rows

__all__ = ["Fields", "Rows", "as_rows", "read_idx", "read_mosaics", "read_npz"]
