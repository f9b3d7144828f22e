"""What was forgotten so far: requests that stay in force, and their records found again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from expunge.data.digests import content_digests
from expunge.data.rows import Rows
from expunge.errors import (
    DataError,
)
from expunge.records import (
    Aim,
    Scope,
)

__all__ = [
    "Forgotten",
    "commitment",
    "found_again",
    "holdout_commitment",
    "never_forgotten",
    "still_there",
    "unlike",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forgotten:
    """What was served of a request: its ids and classes stay forgotten in every later request.

    `labels` are those of the ids then, None where an old history does not tell. `rows` is kept in
    memory so that later requests check it again; None after a reload. `joined` are ids that nobody
    asked for: rows that stay and that the method let join the request, served or refused.
    """

    aim: Aim
    scope: Scope
    classes: frozenset[int]
    ids: tuple[str, ...]
    salt: str
    labels: tuple[int, ...] | None = None
    rows: Rows | None = None
    joined: tuple[str, ...] = ()


def commitment(request: Forgotten) -> str:
    """Salted SHA-256 of the forget selection; the salt is private."""
    text = json.dumps(
        [request.salt, sorted(request.classes), list(request.ids)], separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def holdout_commitment(salt: str, holdout: Rows) -> str:
    """Salted SHA-256 of the contents and labels of a holdout, in whatever order."""
    rows = sorted(zip(content_digests(holdout), holdout.labels.tolist(), strict=True))
    total = hashlib.sha256(salt.encode())
    for digest, label in rows:
        total.update(digest + f" {label}\n".encode())
    return total.hexdigest()


def still_there(rows: Rows, requests: Sequence[Forgotten]) -> Bool[Tensor, " rows"]:
    """Which rows none of these requests took away, by id or by class."""
    if not requests:
        return torch.ones(len(rows), dtype=torch.bool)
    ids = {i for request in requests for i in request.ids}
    classes = sorted({c for request in requests for c in request.classes})
    stays = torch.tensor([i not in ids for i in rows.ids], dtype=torch.bool)
    return stays & ~torch.isin(rows.labels, torch.tensor(classes, dtype=torch.int64))


def never_forgotten(rows: Rows, requests: Sequence[Forgotten]) -> Rows:
    """The rows that none of these requests took away, by id or by class."""
    if not requests:
        return rows
    return rows.select(still_there(rows, requests).nonzero().flatten())


def found_again(request: Forgotten, rows: Rows) -> Forgotten:
    """The request with its records, found by id among `rows` where they were not kept.

    Raises DataError where these ids name other rows than then: other labels, or other content.
    """
    found = _with_its_ids(request, rows)
    if not len(found):
        return request
    other = unlike(request, found)
    if other is not None:
        raise DataError(
            f"Expected row {other[0]!r} of `train` to be the record that an earlier request "
            f"forgot, got one {other[1]}. The data or their order changed since, and the ids now "
            "name other rows: give rows `ids` that stay the same."
        )
    return request if request.rows is not None else dataclasses.replace(request, rows=found)


def _with_its_ids(request: Forgotten, rows: Rows) -> Rows:
    wanted = set(request.ids)
    places = [n for n, i in enumerate(rows.ids) if i in wanted]
    return rows.select(torch.tensor(places, dtype=torch.int64))


def unlike(request: Forgotten, rows: Rows) -> tuple[str, str] | None:
    """The first of `rows` that has the id of a record of the request and is another, and in what.

    Labels are compared, and contents where the request's own rows are in memory. None where no row
    is told to be another.
    """
    found = _with_its_ids(request, rows)
    others: list[str] = []
    labels = zip(found.ids, found.labels.tolist(), strict=True)
    if request.labels is not None:
        then = dict(zip(request.ids, request.labels, strict=True))
        others = [i for i, label in labels if label != then[i]]
    elif request.scope == "classes":
        others = [i for i, label in labels if label not in request.classes]
    what = "of another class" if others else "with other content"
    if not others and request.rows is not None:
        others = _different(request.rows, found)
    return (others[0], what) if others else None


def _different(first: Rows, second: Rows) -> list[str]:
    """Ids in both whose rows differ in content; only these are read."""
    places = {i: n for n, i in enumerate(first.ids)}
    shared = [n for n, i in enumerate(second.ids) if i in places]
    new = second.select(torch.tensor(shared, dtype=torch.int64))
    old = first.select(torch.tensor([places[i] for i in new.ids], dtype=torch.int64))
    pairs = zip(new.ids, content_digests(old), content_digests(new), strict=True)
    return [i for i, a, b in pairs if a != b]
