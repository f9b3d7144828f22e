"""Arrays in npz files: x, y and optional ids; pickles are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import DataError

__all__ = ["read_npz"]


def read_npz(path: Path | str) -> dict[str, Any]:
    """Read x, y and optional id from an npz file; object arrays (pickles) are refused."""
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"Expected a file at {path}, found none. Check the path.") from error
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"Expected {path.name} to be an npz file of plain arrays, but reading it raised "
            f"{type(error).__name__}: {error}. Object arrays are pickles and are refused; save "
            "ids as strings and images as numbers."
        ) from error
