"""What is to be forgotten: a checked, frozen request.

A `ForgetTask` names the rows, which of them are to be forgotten, and what else a method may be
handed. Make one with `forget_classes` (aim `absent`), `forget_indices`, `forget_ids` or
`forget_subclasses` (aim `unseen`); the constructor itself checks nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from expunge.data.copies import Views
from expunge.data.digests import content_digests
from expunge.data.ids import id_texts, refuse_single
from expunge.data.items import Fields
from expunge.data.labels import labels_of
from expunge.data.names import refuse_other_names
from expunge.data.rows import Rows
from expunge.data.selections import masked_places, refuse_doubles, whole_numbers
from expunge.data.views import as_rows
from expunge.errors import DataError, TaskError
from expunge.records import Aim, Scope
from expunge.statistics.features import FeatureStatistics
from expunge.training import Training

__all__ = [
    "ForgetTask",
    "Given",
    "forget_classes",
    "forget_ids",
    "forget_indices",
    "forget_subclasses",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """What a request comes with: rows never trained on, statistics, how the model was trained.

    `views` makes label-preserving views of rows, in the user's word; `references` are models, or
    runs of `retrain`, that were trained without the forget set. No method is handed these.
    """

    holdout: Rows | None = None
    statistics: FeatureStatistics | None = None
    training: Training | None = None
    views: Views | None = None
    references: tuple[Any, ...] = ()


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ForgetTask:
    """One request: `rows`, and which of them are `chosen` (n,) to be forgotten.

    With `chosen` None all `rows` are to be forgotten, and what stays is not at hand. Inside a
    method `holdout` is its `tune` part only, and everything else the method did not declare in
    `info.needs` is None; `views` are always handed over. `classes` are the classes of this request
    (empty for records) and `gone` those of all requests so far.
    """

    aim: Aim
    rows: Rows
    chosen: Bool[Tensor, " rows"] | None = None
    classes: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()
    given: Given = field(default_factory=Given)

    @property
    def scope(self) -> Scope:
        """Whether whole classes are asked for, or records of classes that stay."""
        return "classes" if self.classes else "records"

    @cached_property
    def forget(self) -> Rows:
        """The rows to be forgotten."""
        if self.chosen is None:
            return self.rows
        return self.rows.select(self.chosen.nonzero().flatten())

    @cached_property
    def retain(self) -> Rows | None:
        """The rows that stay; None where they are not at hand."""
        return None if self.chosen is None else self.rows.select((~self.chosen).nonzero().flatten())

    @property
    def holdout(self) -> Rows | None:
        """Rows never trained on, where given."""
        return self.given.holdout

    @property
    def statistics(self) -> FeatureStatistics | None:
        """Sums over the training features, where given."""
        return self.given.statistics

    @property
    def training(self) -> Training | None:
        """How the model was trained, where given."""
        return self.given.training

    @property
    def references(self) -> tuple[Any, ...]:
        """Models trained without the forget set, where given."""
        return self.given.references

    @property
    def views(self) -> Views | None:
        """What makes label-preserving views of a batch of rows, where named."""
        return self.given.views

    def alone(self) -> ForgetTask:
        """The same request with the forget rows alone: what stays is not at hand."""
        return dataclasses.replace(self, rows=self.forget, chosen=None)

    def having(self, given: Given) -> ForgetTask:
        """The same request with other things given beside it."""
        return dataclasses.replace(self, given=given)


def _checked_aim(aim: str, scope: Scope) -> Aim:
    if aim not in ("absent", "unseen"):
        raise TaskError(f'Expected `aim` to be "absent" or "unseen", got {aim!r}.')
    if scope == "records" and aim == "absent":
        raise TaskError(
            'Expected `aim` "unseen" for records of a class that stays, got "absent". Forcing '
            "their labels wrong is itself a leak; forget the whole class to make it absent."
        )
    return aim  # type: ignore[return-value]


def _build(
    rows: Rows, chosen: Tensor, *, aim: Aim, classes: frozenset[int], given: Given
) -> ForgetTask:
    if not bool(chosen.any()):
        raise TaskError(
            "Expected the forget set to hold at least one record, got none. Check the classes, "
            "indices or ids of the request."
        )
    if bool(chosen.all()):
        raise TaskError(
            f"Expected the forget set to leave some records, got all {len(rows)}. Delete the "
            "model instead."
        )
    return ForgetTask(aim=aim, rows=rows, chosen=chosen, classes=classes, gone=classes, given=given)


def _given(
    holdout: Any, rows: Rows, statistics: FeatureStatistics | None, training: Training | None
) -> Given:
    """What the request comes with; names of classes in the holdout are those of its own rows."""
    seen = None
    if holdout is not None:
        seen = as_rows(holdout, argument="holdout", fields=Fields(classes=rows.names))
        refuse_other_names(rows.names, seen.names)
    return Given(holdout=seen, statistics=statistics, training=training)


def _class_numbers(classes: Iterable[Any], rows: Rows) -> frozenset[int]:
    """The classes asked for by number: given as such, by name, or as a mask of all classes."""
    refuse_single(classes, "classes")
    names = () if rows.names is None else rows.names.names
    count = max(len(names), int(rows.labels.max()) + 1 if len(rows) else 0)
    places = masked_places(classes, count, "classes", "class")
    if places is not None:
        return frozenset(places)
    entries = [name.item() if isinstance(name, np.str_) else name for name in classes]
    if names and any(isinstance(entry, str) for entry in entries):
        stray = next((e for e in entries if e not in names), None)
        if stray is not None:
            raise TaskError(
                f"Expected `classes` among the names in the data, got {stray!r}; they are "
                f"{_shown(names)}."
            )
        return frozenset(names.index(entry) for entry in entries)
    return frozenset(whole_numbers(entries, "classes"))


def forget_classes(
    train: Any,
    classes: Iterable[int | str],
    *,
    forget: Any = None,
    holdout: Any = None,
    ids: Sequence[Any] | None = None,
    aim: str = "absent",
    statistics: FeatureStatistics | None = None,
    training: Training | None = None,
) -> ForgetTask:
    """Ask for whole classes to be forgotten: every row of `train` with such a label.

    `train` is a Dataset, a pair (x, y) or a mapping with x, y and optional id. Where the training
    data are gone, pass `train=None` and `forget=` the forget rows alone; methods that need more
    refuse. `ids` name the rows of whichever is given (default: the row index as text). `holdout`
    are rows never trained on. `classes` are numbers, names where the labels are names, or a mask
    with one truth value a class. Raises TaskError for unknown or empty classes.
    """
    checked = _checked_aim(aim, "classes")
    if checked != "absent":
        raise TaskError(
            'Expected `aim` "absent" for whole classes, got "unseen". A class with no record '
            "left cannot be treated as unseen records of a class that stays; ask for records."
        )
    if (train is None) == (forget is None):
        raise TaskError(
            "Expected either `train` (the forget rows are found by label) or `forget` (they are "
            "given), got " + ("neither." if train is None else "both.")
        )
    argument = "train" if forget is None else "forget"
    rows = as_rows(train if forget is None else forget, ids=ids, argument=argument)
    wanted = _class_numbers(classes, rows)
    if not wanted:
        raise TaskError("Expected `classes` to name at least one class, got none.")
    if min(wanted) < 0:
        raise TaskError(f"Expected `classes` to be class numbers from 0, got {min(wanted)}.")
    present = set(rows.labels.unique().tolist())
    missing = sorted(wanted - present)
    if missing:
        raise TaskError(
            f"Expected rows of class {missing[0]} in `{argument}`, got none; the classes there "
            f"are {_shown(sorted(present))}."
        )
    chosen = torch.isin(rows.labels, torch.tensor(sorted(wanted)))
    given = _given(holdout, rows, statistics, training)
    if forget is None:
        return _build(rows, chosen, aim=checked, classes=wanted, given=given)
    if not bool(chosen.all()):
        stray = int(rows.labels[~chosen][0])
        raise TaskError(
            f"Expected `forget` to hold rows of class {_shown(sorted(wanted))} only, got a row "
            f"of class {stray}."
        )
    own = rows if rows.given_ids else _by_content(rows)
    return ForgetTask(aim=checked, rows=own, classes=wanted, gone=wanted, given=given)


def forget_indices(
    train: Any,
    indices: Iterable[int],
    *,
    holdout: Any = None,
    ids: Sequence[Any] | None = None,
    aim: str = "unseen",
    statistics: FeatureStatistics | None = None,
    training: Training | None = None,
) -> ForgetTask:
    """Ask for records of classes that stay to be treated as never seen, by row number of `train`.

    A mask with one truth value a row stands for the numbers of its true rows. Raises TaskError for
    row numbers out of range, given twice, or none at all.
    """
    rows = as_rows(train, ids=ids)
    n = len(rows)
    places = masked_places(indices, n, "indices", "row")
    numbers = whole_numbers(indices, "indices") if places is None else places
    outside = [i for i in numbers if not 0 <= i < n]
    if outside:
        raise TaskError(
            f"Expected `indices` between 0 and {n - 1}, got {outside[0]}. Indices count the rows "
            "of `train` from 0."
        )
    refuse_doubles(numbers, "indices")
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.tensor(numbers, dtype=torch.int64)] = True
    return _build(
        rows,
        chosen,
        aim=_checked_aim(aim, "records"),
        classes=frozenset(),
        given=_given(holdout, rows, statistics, training),
    )


def forget_ids(
    train: Any,
    wanted: Iterable[Any],
    *,
    holdout: Any = None,
    ids: Sequence[Any] | None = None,
    aim: str = "unseen",
    statistics: FeatureStatistics | None = None,
    training: Training | None = None,
) -> ForgetTask:
    """Ask for records of classes that stay to be treated as never seen, by id.

    `ids` names the rows of `train` (default: its own `id` array, else the row index as text).
    `wanted` is a list, set or array, or a mask with one truth value a row; numbers and UTF-8 bytes
    are read as text, as `ids` are. Raises TaskError for ids that are unknown, given twice, or none
    at all, and for a plain text.
    """
    rows = as_rows(train, ids=ids)
    refuse_single(wanted, "wanted")
    places = masked_places(wanted, len(rows), "wanted", "row")
    texts = id_texts(wanted, "wanted") if places is None else [rows.ids[i] for i in places]
    refuse_doubles(texts, "ids")
    position = {text: i for i, text in enumerate(rows.ids)}
    unknown = [t for t in texts if t not in position]
    if unknown:
        raise TaskError(
            f"Expected ids of records in `train`, got unknown id {unknown[0]!r} ({len(unknown)} of "
            f"{len(texts)} unknown). "
            "Check the list against the ids of the data: leading zeros, spaces, another set."
        )
    return forget_indices(
        rows,
        [position[t] for t in texts],
        holdout=holdout,
        aim=aim,
        statistics=statistics,
        training=training,
    )


def forget_subclasses(
    train: Any,
    sublabels: Sequence[int] | Tensor,
    subclasses: Iterable[int],
    *,
    holdout: Any = None,
    ids: Sequence[Any] | None = None,
    statistics: FeatureStatistics | None = None,
    training: Training | None = None,
) -> ForgetTask:
    """Ask for every record of some sub-classes to be treated as never seen (aim `unseen`).

    `sublabels` gives each row of `train` its finer label; the model's own classes stay.
    """
    rows = as_rows(train, ids=ids)
    try:
        fine = labels_of(sublabels, rows.ids, "sublabels").numbers
    except DataError as error:
        raise TaskError(f"Expected one sub-label a row ({len(rows)}): {error}") from error
    wanted = sorted(set(whole_numbers(subclasses, "subclasses")))
    missing = [c for c in wanted if not bool((fine == c).any())]
    if missing:
        raise TaskError(f"Expected rows of sub-class {missing[0]} in `sublabels`, got none.")
    chosen = torch.isin(fine, torch.tensor(wanted, dtype=torch.int64))
    return forget_indices(
        rows,
        chosen.nonzero().flatten().tolist(),
        holdout=holdout,
        statistics=statistics,
        training=training,
    )


def _by_content(rows: Rows) -> Rows:
    """Rows given alone, named by their content: row numbers would collide between requests."""
    seen: dict[str, int] = {}
    names = []
    for digest in content_digests(rows):
        name = digest.hex()
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return dataclasses.replace(rows, ids=tuple(names))


def _shown(values: Sequence[Any]) -> str:
    shown = ", ".join(str(v) for v in values[:12])
    return shown + (", ..." if len(values) > 12 else "")
