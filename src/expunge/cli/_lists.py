"""Lists that a job gives in place or names as files: classes, row numbers, ids."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from expunge.cli._job import Job
from expunge.errors import JobError

__all__ = ["entries_in", "numbers_in"]

_FILES = "a .txt or .csv (one a line), .npy or .npz file"


def entries_in(job: Job, value: list[Any] | str | None, key: str) -> list[Any] | None:
    """A list given in the job, or read from a file; of truth values alone where it is a mask."""
    if value is None or isinstance(value, list):
        return value
    path = job.place(value)
    try:
        if path.suffix in (".npy", ".npz"):
            return _of_array(path, key)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise JobError(
            f"Expected `{key}` to be a list or {_FILES}, but reading {value} raised "
            f"{type(error).__name__}: {error}."
        ) from error
    entries = [line.strip() for line in lines if line.strip()]
    if path.suffix == ".csv":
        wide = next((entry for entry in entries if "," in entry or ";" in entry), None)
        if wide is not None:
            raise JobError(
                f"Expected `{key}` to be one column without a header, but {value} holds the line "
                f"{wide[:60]!r}. Keep the column that is meant."
            )
        entries = [entry.strip('"') for entry in entries]
    truth = {"true": True, "false": False}
    if entries and all(entry.lower() in truth for entry in entries):
        return [truth[entry.lower()] for entry in entries]
    return list(entries)


def _of_array(path: Path, key: str) -> list[Any]:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            names = loaded.files
            if len(names) != 1:
                raise JobError(
                    f"Expected `{key}` to be a file with one array, but {path.name} holds "
                    f"{', '.join(sorted(names)) or 'none'}. Save the one that is meant alone."
                )
            loaded = loaded[names[0]]
    if loaded.ndim > 1 and max(loaded.shape) != loaded.size:
        raise JobError(
            f"Expected `{key}` to be one list, but {path.name} holds an array of shape "
            f"{loaded.shape}. Keep the column that is meant."
        )
    return list(loaded.reshape(-1).tolist())


def numbers_in(job: Job, value: list[Any] | str | None, key: str) -> list[Any]:
    """Whole numbers, or a mask of truth values, whose length whoever knows the rows checks."""
    entries = entries_in(job, value, key) or []
    if entries and all(isinstance(entry, bool) for entry in entries):
        return entries
    try:
        numbers = [int(e) for e in entries]
    except (ValueError, OverflowError, TypeError) as error:
        raise JobError(f"Expected `{key}` to hold integers, but {value} holds {error}.") from error
    if numbers != [e if isinstance(e, float) else int(e) for e in entries]:
        raise JobError(f"Expected `{key}` to hold integers, but {value} holds fractions.")
    return numbers
