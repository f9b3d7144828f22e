"""What a job names as "package.module:name"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expunge.cli._job import Job
from expunge.errors import InputError, JobError
from expunge.runtime.imports import FORM, named

__all__ = ["importable", "imported", "is_import"]


_SEARCHED = "The job's folder and the working directory are searched first."


def is_import(text: str) -> bool:
    """Whether a text of the job has the form "package.module:name"."""
    return FORM.fullmatch(text) is not None


@contextmanager
def importable(job: Job) -> Iterator[None]:
    """Make the job's folder and the working directory importable inside."""
    before = list(sys.path)
    sys.path[:0] = [str(job.folder), str(Path.cwd())]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def imported(text: str, key: str) -> Callable[..., Any]:
    """What "package.module:name" names; raises JobError where it is not there or not callable."""
    try:
        found = named(text, f"`{key}`", searched=_SEARCHED)
    except InputError as error:
        raise JobError(str(error)) from error
    if not callable(found):
        raise JobError(f"Expected `{key}` to be callable, got {type(found).__name__}.")
    return found
