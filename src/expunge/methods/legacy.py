"""Settings of earlier versions in today's words, so that old job files keep working."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["current"]

_PATCH = ("spec", "form", "tolerance", "jitter", "ridge", "nearest", "merge_seconds")
_RENAMED = {"refit_ridge": "refit_penalty"}
_PUBLISHED = ("share", "clusters", "sharpness", "rounds")


def current(name: str, table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method called `name` and its settings `table` as they are called today.

    `prune` once had a `mode`: "as_published" is the method `prune-published` now, and the settings
    of the mode that was not chosen, which had no effect, are left out. `refit_ridge` of
    `prototype-surgery` is `refit_penalty`. Everything else is handed back as it is.
    """
    if name == "prototype-surgery":
        return name, {_RENAMED.get(key, key): value for key, value in table.items()}
    if name != "prune":
        return name, dict(table)
    mode = table.get("mode", "patch")
    if mode not in ("patch", "as_published"):
        return name, dict(table)
    without = _PUBLISHED if mode == "patch" else _PATCH
    rest = {key: value for key, value in table.items() if key not in ("mode", *without)}
    return ("prune" if mode == "patch" else "prune-published"), rest
