"""What "package.module:Name" names: a method or an audit, as the value that is checked."""

from __future__ import annotations

import inspect
from typing import Any

from expunge.audits.base import Audit, AuditInfo
from expunge.errors import InputError
from expunge.methods.base import Method
from expunge.records import MethodInfo
from expunge.runtime.imports import named

__all__ = ["named_value"]


def named_value(text: str) -> Method | Audit:
    """The method or audit of that name; a class gives its small settings or its defaults.

    Raises InputError where the text names nothing, or something else.
    """
    value = _made(named(text, "METHOD"), text)
    kind = MethodInfo if isinstance(value, Method) else AuditInfo
    if not isinstance(getattr(value, "info", None), kind):
        raise InputError(
            f"Expected {type(value).__name__} to say what it is in `info`, got none. Give the "
            f"class an `info: ClassVar[{kind.__name__}]`."
        )
    return value


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
