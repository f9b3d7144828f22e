"""What is to be forgotten: a checked, frozen request.

A `ForgetTask` names the forget rows and everything a method may be handed. Make one with
`forget_classes` (aim `absent`), `forget_indices`, `forget_ids` or `forget_subclasses` (aim
`unseen`); the constructor itself checks nothing.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from expunge.data.digests import content_digests
from expunge.data.ids import id_texts, refuse_single
from expunge.data.rows import Rows
from expunge.data.views import as_rows
from expunge.errors import TaskError
from expunge.records import Aim, Scope
from expunge.statistics.features import FeatureStatistics
from expunge.training import Training

__all__ = ["ForgetTask", "forget_classes", "forget_ids", "forget_indices", "forget_subclasses"]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForgetTask:
    """One request: `forget` rows, the rows that stay, and what else a method may be handed.

    Inside a method `holdout` is its `tune` part only, and everything the method did not declare
    in `info.needs` is None. `classes` are the classes of this request (empty for records) and
    `gone` those of all requests so far. `explicit_ids` says whether the ids
    were given, or are mere row numbers.
    """

    aim: Aim
    scope: Scope
    classes: frozenset[int]
    forget: Rows
    retain: Rows | None = None
    holdout: Rows | None = None
    statistics: FeatureStatistics | None = None
    training: Training | None = None
    gone: frozenset[int] = frozenset()
    explicit_ids: bool = False


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
    rows: Rows,
    chosen: Tensor,
    *,
    aim: Aim,
    scope: Scope,
    classes: frozenset[int],
    holdout: Any,
    statistics: FeatureStatistics | None,
    training: Training | None,
    explicit_ids: bool,
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
    return ForgetTask(
        aim=aim,
        scope=scope,
        classes=classes,
        forget=rows.select(chosen.nonzero().flatten()),
        retain=rows.select((~chosen).nonzero().flatten()),
        holdout=None if holdout is None else as_rows(holdout, argument="holdout"),
        statistics=statistics,
        training=training,
        gone=classes,
        explicit_ids=explicit_ids,
    )


def forget_classes(
    train: Any,
    classes: Iterable[int],
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
    are rows never trained on. Raises TaskError for unknown or empty classes.
    """
    wanted = frozenset(_whole(classes, "classes"))
    if not wanted:
        raise TaskError("Expected `classes` to name at least one class, got none.")
    if min(wanted) < 0:
        raise TaskError(f"Expected `classes` to be class numbers from 0, got {min(wanted)}.")
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
    given = train if forget is None else forget
    rows = as_rows(given, ids=ids, argument=argument)
    present = set(rows.labels.unique().tolist())
    missing = sorted(wanted - present)
    if missing:
        raise TaskError(
            f"Expected rows of class {missing[0]} in `{argument}`, got none; the classes there "
            f"are {_shown(sorted(present))}."
        )
    own_ids = isinstance(given, Mapping) and not {"id", "ids"}.isdisjoint(given)
    explicit = ids is not None or own_ids
    chosen = torch.isin(rows.labels, torch.tensor(sorted(wanted)))
    if forget is not None:
        if not bool(chosen.all()):
            stray = int(rows.labels[~chosen][0])
            raise TaskError(
                f"Expected `forget` to hold rows of class {_shown(sorted(wanted))} only, got a row "
                f"of class {stray}."
            )
        return ForgetTask(
            aim=checked,
            scope="classes",
            classes=wanted,
            forget=rows if explicit else _by_content(rows),
            holdout=None if holdout is None else as_rows(holdout, argument="holdout"),
            statistics=statistics,
            training=training,
            gone=wanted,
            explicit_ids=explicit,
        )
    return _build(
        rows,
        chosen,
        aim=checked,
        scope="classes",
        classes=wanted,
        holdout=holdout,
        statistics=statistics,
        training=training,
        explicit_ids=explicit,
    )


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

    Raises TaskError for row numbers out of range, given twice, or none at all.
    """
    rows = as_rows(train, ids=ids)
    numbers = _whole(indices, "indices")
    n = len(rows)
    outside = [i for i in numbers if not 0 <= i < n]
    if outside:
        raise TaskError(
            f"Expected `indices` between 0 and {n - 1}, got {outside[0]}. Indices count the rows "
            "of `train` from 0."
        )
    _no_doubles(numbers, "indices")
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.tensor(numbers, dtype=torch.int64)] = True
    return _build(
        rows,
        chosen,
        aim=_checked_aim(aim, "records"),
        scope="records",
        classes=frozenset(),
        holdout=holdout,
        statistics=statistics,
        training=training,
        explicit_ids=ids is not None,
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
    `wanted` is a list, set or array; numbers and UTF-8 bytes are read as text, as `ids` are. Raises
    TaskError for ids that are unknown, given twice, or none at all, and for a plain text.
    """
    rows = as_rows(train, ids=ids)
    refuse_single(wanted, "wanted")
    texts = id_texts(wanted, "wanted")
    _no_doubles(texts, "ids")
    position = {text: i for i, text in enumerate(rows.ids)}
    unknown = [t for t in texts if t not in position]
    if unknown:
        near = difflib.get_close_matches(unknown[0], rows.ids[:100_000], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TaskError(
            f"Expected ids of records in `train`, got unknown id {unknown[0]!r} "
            f"({len(unknown)} of {len(texts)} unknown).{hint}"
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
    fine = torch.as_tensor(sublabels).to(torch.int64)
    if fine.shape != (len(rows),):
        raise TaskError(
            f"Expected one sub-label a row ({len(rows)}), got shape {tuple(fine.shape)}."
        )
    wanted = sorted(set(_whole(subclasses, "subclasses")))
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


def _whole(values: Iterable[Any], argument: str) -> list[int]:
    refuse_single(values, argument)
    numbers = []
    for value in values:
        kind = str(getattr(value, "dtype", type(value).__name__))
        whole: Any = None if "bool" in kind else value
        try:
            numbers.append(operator.index(whole))
        except TypeError as error:
            raise TaskError(
                f"Expected `{argument}` to be whole numbers, got {value!r}. Turn a mask into row "
                "numbers first."
            ) from error
    return numbers


def _by_content(rows: Rows) -> Rows:
    """Rows given alone, named by their content: row numbers would collide between requests."""
    seen: dict[str, int] = {}
    names = []
    for digest in content_digests(rows):
        name = digest.hex()
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return as_rows(rows, ids=names, argument="forget")


def _no_doubles(values: Sequence[Any], argument: str) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise TaskError(
                f"Expected each record once in `{argument}`, got {value!r} twice. Remove the "
                "duplicate."
            )
        seen.add(value)


def _shown(values: Sequence[int]) -> str:
    shown = ", ".join(str(v) for v in values[:12])
    return shown + (", ..." if len(values) > 12 else "")
