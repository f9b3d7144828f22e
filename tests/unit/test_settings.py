"""A field's declaration is all there is: the check, the words and the facts are read from it."""

import math
import sys
import textwrap
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import InputError
from expunge.settings import (
    Count,
    NotNegative,
    Positive,
    Range,
    check_settings,
    checked_count,
    facts_of,
    plain,
    settings_of,
)


@dataclass(frozen=True)
class Some:
    rule: Literal["first", "second", "third"] = "first"
    step: Positive = 0.5
    ridge: NotNegative = 0.0
    share: Annotated[float, Range(above=0, most=1)] = 1.0
    level: Annotated[float, Range(above=0, below=1)] = 0.5
    few: Annotated[int, Range(least=0, below=10)] = 0
    count: Count = 3
    size: Count | None = None
    gap: Positive | None = None
    flag: bool = False
    text: str = ""


GOOD = [
    {},
    {"rule": "third"},
    {"step": 1},
    {"step": np.float64(0.1)},
    {"step": np.float32(3)},
    {"step": np.int64(2)},
    {"count": np.int64(4)},
    {"size": 7},
    {"size": None},
    {"share": 1},
    {"ridge": 0},
    {"level": 0.999},
    {"few": 9},
    {"flag": True},
]
BAD = [
    ({"rule": "fourth"}, '`rule` to be "first", "second" or "third", got \'fourth\'.'),
    ({"rule": 1}, "got 1."),
    ({"step": 0}, "`step` to be a number above 0, got 0."),
    ({"step": -1.0}, "`step` to be a number above 0, got -1.0."),
    ({"step": math.nan}, "got nan."),
    ({"step": math.inf}, "got inf."),
    ({"step": "a"}, "got 'a'."),
    ({"step": True}, "`step` to be a number above 0, got True."),
    ({"step": None}, "got None."),
    ({"ridge": -1e-9}, "`ridge` to be a number from 0, got -1e-09."),
    ({"share": 1.5}, "`share` to be a number above 0 and at most 1, got 1.5."),
    ({"level": 1}, "`level` to be a number above 0 and below 1, got 1."),
    ({"level": 0.0}, "`level` to be a number above 0 and below 1, got 0.0."),
    ({"few": 10}, "`few` to be an integer from 0 and below 10, got 10."),
    ({"count": 0}, "`count` to be an integer from 1, got 0."),
    ({"count": 2.0}, "`count` to be an integer from 1, got 2.0."),
    ({"count": np.float32(2)}, "`count` to be an integer from 1"),
    ({"size": 0}, "`size` to be an integer from 1 or None, got 0."),
    ({"flag": 1}, "`flag` to be true or false, got 1."),
    ({"text": 3}, "`text` to be a text, got 3."),
]


@pytest.mark.parametrize("fields", GOOD, ids=repr)
def test_what_the_declaration_allows_passes(fields):
    check_settings(Some(**fields))


@pytest.mark.parametrize(("fields", "words"), BAD, ids=repr)
def test_anything_else_is_refused_in_its_words(fields, words):
    with pytest.raises(InputError) as caught:
        check_settings(Some(**fields))
    assert words in str(caught.value)


def test_the_refusal_may_say_where_the_field_stands():
    with pytest.raises(InputError, match=r"Expected `some\.step` to be a number above 0, got -1\."):
        check_settings(Some(step=-1), within="some")


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("step", 1, 1.0),
        ("share", 1, 1.0),
        ("gap", 2, 2.0),
        ("gap", None, None),
        ("count", 3, 3),
        ("size", 3, 3),
        ("flag", True, True),
        ("text", "a", "a"),
    ],
)
def test_whole_numbers_are_kept_as_the_field_says(name, value, kept):
    (setting,) = (s for s in settings_of(Some) if s.name == name)
    assert setting.kept(value) == kept
    assert type(setting.kept(value)) is type(kept)


def test_facts_are_the_default_and_the_words_of_the_check():
    assert facts_of(Some)["share"] == {
        "default": 1.0,
        "values": "a number above 0 and at most 1",
    }
    assert facts_of(Some)["rule"]["values"] == '"first", "second" or "third"'
    by_name = {s.name: s for s in settings_of(Some)}
    assert by_name["rule"].choices == ("first", "second", "third")
    assert by_name["step"].choices == ()


@given(st.floats(), st.floats(-10, 10), st.floats(-10, 10))
def test_a_range_holds_what_its_ends_say(value, low, high):
    held = Range(least=low, most=high).holds(value)
    assert held == (math.isfinite(value) and low <= value <= high)
    assert Range(above=low).holds(value) == (math.isfinite(value) and value > low)
    assert Range(below=high).holds(value) == (math.isfinite(value) and value < high)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"step": np.float32(3)}, {"step": float}),
        ({"step": np.float64(3), "count": np.int64(2)}, {"step": float, "count": int}),
        ({"step": np.int32(3)}, {"step": int}),
        ({"flag": True, "text": "a"}, {"flag": bool, "text": str}),
    ],
    ids=repr,
)
def test_numbers_of_others_become_plain(fields, kinds):
    value = Some(**fields)
    told = plain(value)
    assert told == value
    assert {name: type(getattr(told, name)) for name in kinds} == kinds


def test_a_value_of_plain_numbers_stays_itself():
    value = Some(step=2, size=None)
    assert plain(value) is value


@dataclass(frozen=True)
class Called:
    change: Callable[[int], int] | None = None


def test_a_function_must_be_one():
    check_settings(Called())
    check_settings(Called(change=abs))
    with pytest.raises(InputError, match="Expected `change` to be a function or None, got 3"):
        check_settings(Called(change=3))


@pytest.mark.parametrize("value", [0, 2.5, True, "3", None], ids=repr)
def test_a_count_is_a_whole_number_from_one(value):
    with pytest.raises(InputError, match="Expected `rows` to be an integer from 1, got "):
        checked_count(value, "rows")


def test_a_count_is_plain():
    assert type(checked_count(np.int64(3), "rows")) is int


BASE = """
    from __future__ import annotations
    from dataclasses import dataclass
    from typing import TYPE_CHECKING, ClassVar
    from expunge.settings import Positive as Size
    if TYPE_CHECKING:
        from pathlib import Path
        from elsewhere import Facts

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        facts: ClassVar[Facts] = None
        size: Size = 1.0
        place: Path | None = None
"""
HEIR = """
    from __future__ import annotations
    from dataclasses import dataclass
    from expunge.settings import Count
    from base_of_others import Base

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Heir(Base):
        count: Count = 1
"""


def test_types_are_read_where_their_class_is_defined_or_not_at_all(monkeypatch):
    for name, text in (("base_of_others", BASE), ("heir_of_others", HEIR)):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(textwrap.dedent(text), vars(module))
    heir = sys.modules["heir_of_others"].Heir
    words = {s.name: s.words for s in settings_of(heir)}
    assert words == {
        "size": "a number above 0",
        "place": "another value",
        "count": "an integer from 1",
    }
    check_settings(heir(place=object()))
    with pytest.raises(InputError, match="`size` to be a number above 0, got 0"):
        check_settings(heir(size=0))
