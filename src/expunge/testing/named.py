"""What "package.module:Name" names: a method or an audit, as the value that is checked."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from typing import Any

from expunge.audits.base import Audit, AuditInfo
from expunge.errors import InputError
from expunge.methods.base import Method
from expunge.records import MethodInfo

__all__ = ["named_value"]

_FORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def named_value(text: str) -> Method | Audit:
    """The method or audit of that name; a class gives its small settings or its defaults.

    Raises InputError where the text names nothing, or something else.
    """
    if _FORM.fullmatch(text) is None:
        raise InputError(f'Expected METHOD as "package.module:Name", got {text!r}.')
    value = _made(_found(text), text)
    kind = MethodInfo if isinstance(value, Method) else AuditInfo
    if not isinstance(getattr(value, "info", None), kind):
        raise InputError(
            f"Expected {type(value).__name__} to say what it is in `info`, got none. Give the "
            f"class an `info: ClassVar[{kind.__name__}]`."
        )
    return value


def _found(text: str) -> Any:
    module_name, _, path = text.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        known = isinstance(error, ModuleNotFoundError) and error.name is not None
        missing = known and f"{module_name}.".startswith(f"{error.name}.")  # type: ignore[attr-defined]
        raise InputError(
            f"Expected METHOD to name a module that can be imported, got {module_name!r}, "
            + (
                "which is not found. Install it, or go to the folder that holds it: the working "
                "directory is searched first."
                if missing
                else f"which raised {type(error).__name__}: {error}. Fix the module."
            )
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Check the spelling."
            raise InputError(
                f"Expected METHOD to name something in {module_name}, got {name!r}, which is not "
                f"there. {hint}"
            )
        found = getattr(found, name)
    return found


def _made(found: Any, text: str) -> Method | Audit:
    if isinstance(found, (Method, Audit)):
        return found
    if not isinstance(found, type) or not issubclass(found, (Method, Audit)):
        raise InputError(
            f"Expected METHOD to name a Method or an Audit, a class or a value, got {text!r}, "
            f"which is {found!r}. Inherit from `expunge.methods.base.Method` or "
            "`expunge.audits.base.Audit`."
        )
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(
            f"Expected METHOD to name a class with its verb, got {text!r} without {lacking}. "
            "Define it."
        )
    try:
        return found.small() if issubclass(found, Method) else found()
    except TypeError as error:
        raise InputError(
            f"Expected {found.__name__}() to work with defaults alone, but {error}. Give every "
            "field a default, or name a value."
        ) from error
