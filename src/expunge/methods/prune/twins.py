"""One input stored twice: which forget records are equal, and which stay in the data as a copy.

Told by the content of the inputs, never by features: those of one input may differ in the last
bits where it was read in another batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from expunge.data.digests import content_digests
from expunge.data.rows import Rows
from expunge.errors import DataError

__all__ = ["Twins", "find_twins"]


@final
@dataclass(frozen=True, slots=True)
class Twins:
    """`groups` holds the position of every forget record once, those of equal inputs together.

    `retained` maps the positions of records to the first retained row that is the same input;
    `copies` are all retained rows that are the input of some record, in order.
    """

    groups: tuple[list[int], ...]
    retained: dict[int, int]
    copies: tuple[int, ...] = ()


def find_twins(forget: Rows, retain: Rows | None) -> Twins:
    """Compare the inputs of all rows by their digests; one pass over the data, no network.

    Raises DataError where one input has two labels.
    """
    groups: dict[bytes, list[int]] = {}
    for position, digest in enumerate(content_digests(forget)):
        members = groups.setdefault(digest, [])
        members.append(position)
        _check_labels(forget, members[0], forget, position)
    found, copies = Twins(tuple(groups.values()), {}), list[int]()
    if retain is None:
        return found
    for row, digest in enumerate(content_digests(retain)):
        for position in groups.get(digest, []):
            _check_labels(forget, position, retain, row)
            found.retained.setdefault(position, row)
            copies.append(row)
    return replace(found, copies=tuple(dict.fromkeys(copies)))


def _check_labels(forget: Rows, position: int, other: Rows, row: int) -> None:
    one, two = int(forget.labels[position]), int(other.labels[row])
    if one != two:
        where = "within the forget set" if other is forget else "in the forget set and what stays"
        raise DataError(
            f"Expected one label for one record, got {one} and {two} for the same input, {where}. "
            "Correct the data, or use retrain."
        )
