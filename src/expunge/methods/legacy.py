"""Settings of earlier versions in today's words, so that old job files keep working."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.errors import JobError

__all__ = ["current", "written"]

_PATCH = ("spec", "form", "tolerance", "jitter", "ridge", "nearest", "merge_seconds")
_RENAMED = {"refit_ridge": "refit_penalty"}
_PUBLISHED = ("share", "clusters", "sharpness", "rounds")


def current(name: str, table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method called `name` and its settings `table` as they are called today.

    `prune` once had a `mode`: "as_published" is the method `prune-published` now, and the settings
    of the mode that was not chosen, which had no effect, are left out. `refit_ridge` of
    `prototype-surgery` is `refit_penalty`. Everything else is handed back as it is. Raises JobError
    where a setting stands under both its names, and for a `mode` that there never was.
    """
    if name == "prototype-surgery":
        _refuse_both(table)
        return name, {_RENAMED.get(key, key): value for key, value in table.items()}
    if name != "prune":
        return name, dict(table)
    mode = table.get("mode", "patch")
    if mode not in ("patch", "as_published"):
        raise JobError(
            f'Expected `method.mode`, a setting of earlier versions, to be "patch" or '
            f'"as_published", got {mode!r}. Today there is no `mode`: write name = "prune" for the '
            'first, and name = "prune-published" for the second.'
        )
    without = _PUBLISHED if mode == "patch" else _PATCH
    rest = {key: value for key, value in table.items() if key not in ("mode", *without)}
    return ("prune" if mode == "patch" else "prune-published"), rest


def written(name: str, table: Mapping[str, Any]) -> dict[str, str]:
    """How the user wrote the settings that are called otherwise today, by today's name."""
    renamed = _RENAMED if name == "prototype-surgery" else {}
    return {today: old for old, today in renamed.items() if old in table}


def _refuse_both(table: Mapping[str, Any]) -> None:
    for old, today in _RENAMED.items():
        if old in table and today in table:
            raise JobError(
                f"Expected `method.{today}` once, got it beside `method.{old}`, its name in "
                f"earlier versions. Keep `{today}` alone."
            )
