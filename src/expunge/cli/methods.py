"""`expunge methods`: what there is, what each needs, and the most it can support."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import typer

from expunge.cli._console import command

if TYPE_CHECKING:
    from expunge.methods import Method

__all__ = ["methods"]


def methods(
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """List the methods: needs, aims, scopes, claims (the ceiling) and cost.

    With --json also every setting: its default, and what it may be.
    """
    with command() as screen:
        import expunge
        from expunge.records import to_json

        if as_json:
            screen.json([json.loads(to_json(_facts(m))) for m in expunge.METHODS])
        else:
            heading = ("name", "summary", "needs", "aims", "for", "supports", "cost")
            rows = [
                (
                    m.info.name,
                    m.info.summary,
                    m().needs_in_words(),
                    ", ".join(sorted(m.info.aims)),
                    ", ".join(sorted(m.info.scopes)),
                    ", ".join(m.info.claims),
                    m.info.cost,
                )
                for m in expunge.METHODS
            ]
            screen.table(heading, rows, left=True, result=True)
        screen.then("expunge init job.toml")


def _facts(method: type[Method]) -> dict[str, Any]:
    """What a method says of itself, the default of each setting, and what each may be."""
    from expunge.settings import facts_of

    info = {f.name: getattr(method.info, f.name) for f in dataclasses.fields(method.info)}
    fields = facts_of(method)
    return info | {
        "settings": {name: facts["default"] for name, facts in fields.items()},
        "values": {name: facts["values"] for name, facts in fields.items()},
    }
