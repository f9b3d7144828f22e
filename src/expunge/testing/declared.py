"""Promises about what is said: `info` is complete, the value is frozen, the record is written."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from typing import get_args

from expunge.audits.base import Audit
from expunge.methods.base import Method
from expunge.records import Aim, Claim, MethodInfo, Need, Scope, Structure, to_json
from expunge.testing.checking import require
from expunge.testing.shared import Subject

__all__ = ["frozen", "info_complete", "named", "record_complete", "value_is_frozen"]

_NOTHING = next(f.default for f in dataclasses.fields(MethodInfo) if f.name == "reads")
"""What a method says that reads no row of its own."""


def named(of: Method | Audit) -> None:
    """Raise ContractError where the name is not in lower case with hyphens."""
    plain = re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", of.info.name) is not None
    require(plain, of, "expected `info.name` in lower case with hyphens")


def frozen(of: Method | Audit) -> None:
    """Raise ContractError where equal fields do not make equal, hashable, unchangeable values."""
    require(dataclasses.is_dataclass(of), of, "expected a dataclass")
    require(dataclasses.replace(of) == of, of, "expected equal fields to be equal")  # type: ignore[type-var]
    try:
        same = hash(of) == hash(copy.copy(of))
    except TypeError:
        same = False
    require(same, of, "expected a hashable value")
    for field in dataclasses.fields(of):  # type: ignore[arg-type]
        try:
            setattr(of, field.name, getattr(of, field.name))
        except dataclasses.FrozenInstanceError:
            continue
        require(False, of, f"expected field `{field.name}` to be frozen")


def info_complete(subject: Subject) -> None:
    """`info` is filled in, and its words are known ones."""
    info, method = subject.info, subject.method
    named(method)
    paper = info.paper
    for name, text in (
        ("title", info.title),
        ("summary", info.summary),
        ("cost", info.cost),
        ("reads", info.reads),
        ("paper.title", paper.title),
        ("paper.authors", paper.authors),
        ("paper.venue", paper.venue),
        *((f"expected_failures[{name!r}]", text) for name, text in info.expected_failures.items()),
    ):
        subject.require(bool(text.strip()), f"expected `info.{name}` to say something, got none")
    for name, got, known in (
        ("needs", method.needs, get_args(Need)),
        ("aims", info.aims, get_args(Aim)),
        ("scopes", info.scopes, get_args(Scope)),
        ("claims", info.claims, get_args(Claim)),
        ("structure", {info.structure}, get_args(Structure)),
    ):
        subject.require(set(got) <= set(known), f"expected `info.{name}` among {known}")
        subject.require(bool(got), f"expected `info.{name}` to name something, got none")
    for scope in info.scopes:
        subject.require(
            method.needs_for(scope) <= set(get_args(Need)),
            f"expected what is needed for {scope} among {get_args(Need)}",
        )
    for scope, aim in (("classes", "absent"), ("records", "unseen")):
        subject.require(
            (scope in info.scopes) == (aim in info.aims),
            f"expected scope {scope!r} and aim {aim!r} together in `info`",
        )


def value_is_frozen(subject: Subject) -> None:
    """A method is a frozen value: equal fields make equal, hashable methods."""
    frozen(subject.method)


def record_complete(subject: Subject) -> None:
    """The record names the method, every setting and the costs, and can be written as JSON."""
    info = subject.info
    record = subject.run(subject.toy(), seed=3).record
    written = json.loads(to_json(record))
    fields = {f.name for f in dataclasses.fields(subject.method)}  # type: ignore[arg-type]
    subject.require(set(written["settings"]) == fields, "the record lacks some settings")
    subject.require((written["method"], written["seed"]) == (info.name, 3), "wrong name or seed")
    subject.require(written["ceiling"] == list(info.claims), "wrong ceiling in the record")
    changed = written["cost"]["parameters_changed"]
    subject.require(0 < changed <= written["cost"]["parameters"], "implausible count of changes")
    touched = written["cost"]["samples_touched"]
    subject.require(
        info.reads != _NOTHING or touched == 0,
        f"`info.reads` says {_NOTHING!r}, but {touched} rows were counted as touched",
    )
    flat = [v for values in record.log.values() for v in values]
    subject.require(all(math.isfinite(v) for v in flat), "the log holds NaN or infinity")
