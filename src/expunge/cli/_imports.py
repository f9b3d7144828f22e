"""What a job names as "package.module:name"."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expunge.cli._job import Job, nearest
from expunge.errors import JobError

__all__ = ["importable", "imported", "is_import"]

_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_import(text: str) -> bool:
    """Whether a text of the job has the form "package.module:name"."""
    return _IMPORT.fullmatch(text) is not None


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
    if not is_import(text):
        raise JobError(f'Expected `{key}` as "package.module:name", got {text!r}.')
    module_name, _, path = text.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(module_name, key, error) from error
        raise JobError(
            f"Expected `{key}` to name a module that can be imported, got {module_name!r}, which "
            "is not found. The job's folder and the working directory are searched first."
        ) from error
    except Exception as error:
        raise _broken(module_name, key, error) from error
    for name in path.split("."):
        if not hasattr(found, name):
            there = [n for n in dir(found) if not n.startswith("_")]
            raise JobError(
                f"Expected `{key}` to name something in {module_name}, got {name!r}, which is "
                f"not there. {nearest(name, there)}"
            )
        found = getattr(found, name)
    if not callable(found):
        raise JobError(f"Expected `{key}` to be callable, got {type(found).__name__}.")
    return found


def _broken(module_name: str, key: str, error: Exception) -> JobError:
    return JobError(
        f"Expected `{key}` to name a module that can be imported, but importing {module_name!r} "
        f"raised {type(error).__name__}: {error}. Fix the module."
    )
