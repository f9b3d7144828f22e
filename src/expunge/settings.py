"""Settings declared beside their field, and read by checks, help texts and documents alike.

    rule: Literal["relative", "plain"] = "relative"
    step: Positive = 0.15
    share: Annotated[float, Range(above=0, most=1)] = 1.0

A field's type says what its value may be: a number in a range, a choice, true or false, a text, or
None where the type allows it. Numbers must be finite. A type that cannot be read where the class is
defined, as one imported for type checkers alone, is another value: it is not checked. Standard
library only.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, final, get_args, get_origin

from expunge.errors import InputError

__all__ = [
    "Count",
    "NotNegative",
    "Positive",
    "Range",
    "Setting",
    "check_settings",
    "checked_count",
    "facts_of",
    "plain",
    "settings_of",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The ends of what a number may be: `least` and `most` belong to it, the others do not."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a finite number lies within."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def words(self) -> str:
        """The range as it is said after "a number"."""
        low = "" if self.least is None else f"from {self.least:g}"
        low = low if self.above is None else f"above {self.above:g}"
        high = "" if self.most is None else f"at most {self.most:g}"
        high = high if self.below is None else f"below {self.below:g}"
        return " and ".join(part for part in (low, high) if part)


Positive = Annotated[float, Range(above=0)]
"""A number above 0."""

NotNegative = Annotated[float, Range(least=0)]
"""A number from 0."""

Count = Annotated[int, Range(least=1)]
"""A whole number from 1."""

_KINDS: Mapping[Any, tuple[type, str]] = {
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "a text"),
}

_ANY: Mapping[Any, tuple[Range, ...]] = {int: (), float: (Range(),), bool: (), str: ()}
"""What holds without a range: a number is finite."""

_V = TypeVar("_V")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One field of a frozen value: its name, its default, and what it may be."""

    name: str
    default: Any
    hint: Any

    @property
    def words(self) -> str:
        """What the value may be, in words."""
        return _words(self.hint)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values to choose from, empty where it is no choice."""
        return get_args(self.hint) if get_origin(self.hint) is Literal else ()

    def holds(self, value: Any) -> bool:
        """Whether the field may have this value."""
        return _holds(self.hint, value)

    def kept(self, value: Any) -> Any:
        """The value as the field keeps it: a whole number is a float where no integer is asked."""
        kinds = {_opened(part)[0] for part in _parts(self.hint)}
        return float(value) if type(value) is int and float in kinds and int not in kinds else value

    def refusal(self, value: Any, name: str | None = None) -> str:
        """What is said of a value that the field may not have; `name` is what the user calls it."""
        return f"Expected `{name or self.name}` to be {self.words}, got {value!r}."


def settings_of(kind: type[Any]) -> tuple[Setting, ...]:
    """The fields of a dataclass, in order."""
    return tuple(
        Setting(name=f.name, default=f.default, hint=_read(kind, f.name, f.type))
        for f in dataclasses.fields(kind)
    )


def _read(kind: type[Any], name: str, declared: Any) -> Any:
    """A field's type as its class declares it; Any where that cannot be read at run time."""
    if not isinstance(declared, str):
        return NoneType if declared is None else declared
    owner = next((c for c in kind.__mro__ if name in inspect.get_annotations(c)), kind)
    module = sys.modules.get(owner.__module__)
    try:
        # the text of the class's own source, as typing.get_type_hints reads it
        found = eval(declared, dict(vars(owner)), {} if module is None else vars(module))  # noqa: S307
    except Exception:  # noqa: BLE001 - a type of others may fail in any way
        return Any
    return NoneType if found is None else found


def check_settings(value: object, *, within: str = "") -> None:
    """Raise InputError for the first field of a frozen value that may not be what it is.

    `within` is what the user calls the value, where a field's name alone would not say it.
    """
    for setting in settings_of(type(value)):
        got = getattr(value, setting.name)
        if not setting.holds(got):
            name = f"{within}.{setting.name}" if within else setting.name
            raise InputError(setting.refusal(got, name))


def plain(value: _V) -> _V:
    """A checked frozen value with Python's own numbers in place of numpy's and others.

    Whoever works with the value or writes it down meets no other number.
    """
    fields = (f.name for f in dataclasses.fields(value) if f.init)  # type: ignore[arg-type]
    own = {name: getattr(value, name) for name in fields}
    changed = {n: _plain_number(v) for n, v in own.items() if _plain_number(v) is not v}
    return dataclasses.replace(value, **changed) if changed else value  # type: ignore[type-var]


def _plain_number(value: Any) -> Any:
    if type(value) in (bool, int, float) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def checked_count(value: Any, name: str) -> int:
    """An argument that is a whole number from 1; raises InputError for anything else."""
    setting = Setting(name=name, default=None, hint=Count)
    if not setting.holds(value):
        raise InputError(setting.refusal(value))
    return int(value)


def facts_of(kind: type[Any]) -> dict[str, dict[str, Any]]:
    """What lists and documents show of the fields: default, and what each may be."""
    return {s.name: {"default": s.default, "values": s.words} for s in settings_of(kind)}


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _holds(hint: Any, value: Any) -> bool:
    return any(_is(part, value) for part in _parts(hint))


def _is(hint: Any, value: Any) -> bool:
    if hint is NoneType:
        return value is None
    if get_origin(hint) is Literal:
        return any(value == c and type(value) is type(c) for c in get_args(hint))
    kind, ranges = _opened(hint)
    if get_origin(kind) is Callable:
        return callable(value)
    if not _known(kind):
        return True  # no setting of ours, as a tuple; whoever uses it checks it
    fits = isinstance(value, _KINDS[kind][0])
    if not fits or (isinstance(value, bool) and kind is not bool):
        return False
    return all(r.holds(value) for r in (ranges or _ANY[kind]))


def _known(kind: Any) -> bool:
    return any(kind is own for own in _KINDS)


def _opened(hint: Any) -> tuple[Any, tuple[Range, ...]]:
    """The plain type behind `Annotated`, and the ranges said there."""
    if get_origin(hint) is not Annotated:
        return hint, ()
    kind, *extras = get_args(hint)
    return kind, tuple(e for e in extras if isinstance(e, Range))


def _words(hint: Any) -> str:
    parts = _parts(hint)
    if len(parts) > 1:
        return " or ".join(_words(part) for part in parts)
    if hint is NoneType:
        return "None"
    if get_origin(hint) is Literal:
        choices = [f'"{c}"' if isinstance(c, str) else str(c) for c in get_args(hint)]
        return " or ".join([", ".join(choices[:-1]), choices[-1]] if choices[1:] else choices)
    kind, ranges = _opened(hint)
    if get_origin(kind) is Callable:
        return "a function"
    if not _known(kind):
        return "a list of values" if get_origin(kind) is tuple else "another value"
    return " ".join([_KINDS[kind][1], *(r.words() for r in ranges)])
