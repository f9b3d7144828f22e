"""What "package.module:name" names."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from typing import Any

from expunge.errors import InputError

__all__ = ["FORM", "named", "nearest"]

FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""The form of such a text."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Did you mean the nearest known name? Otherwise all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names) or 'none'}."


def named(
    text: str, argument: str, *, searched: str = "The working directory is searched first."
) -> Any:
    """The object that `text` names; raises InputError, naming `argument`, where it is not there.

    `searched` tells the reader where modules are looked for.
    """
    if FORM.fullmatch(text) is None:
        raise InputError(f'Expected {argument} as "package.module:name", got {text!r}.')
    module_name, _, path = text.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(module_name, argument, error) from error
        raise InputError(
            f"Expected {argument} to name a module that can be imported, got {module_name!r}, "
            f"which is not found. Install it, or check the name. {searched}"
        ) from error
    except Exception as error:
        raise _broken(module_name, argument, error) from error
    for name in path.split("."):
        if not hasattr(found, name):
            there = [n for n in dir(found) if not n.startswith("_")]
            raise InputError(
                f"Expected {argument} to name something in {module_name}, got {name!r}, which is "
                f"not there. {nearest(name, there)}"
            )
        found = getattr(found, name)
    return found


def _broken(module_name: str, argument: str, error: Exception) -> InputError:
    return InputError(
        f"Expected {argument} to name a module that can be imported, but importing "
        f"{module_name!r} raised {type(error).__name__}: {error}. Fix the module."
    )
