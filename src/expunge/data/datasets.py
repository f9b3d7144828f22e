"""Map-style datasets as `Rows`, read on demand: what the items say counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from expunge.data.ids import checked_ids, id_texts
from expunge.data.items import Fields, Form, Item, form_of, refuse_other_form, split_item
from expunge.data.labels import ReadLabels, labels_of, numbered
from expunge.data.names import named_classes
from expunge.data.rows import BadRowError, Inputs, Rows, not_finite_row
from expunge.errors import DataError, TaskError

__all__ = ["from_dataset"]

_SAMPLE = 64
"""Items that are read to see whether an attribute tells the labels, beside two of each class."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A data set, the positions of it that are rows, and how its items are read."""

    data: Any
    places: Sequence[int]
    given: tuple[str, ...] | None
    fields: Fields
    argument: str

    def name(self, row: int) -> str:
        """The id of a row as far as it is known."""
        return str(self.places[row]) if self.given is None else self.given[row]

    def item(self, place: int, row: int) -> Item:
        """The item at a position of the data set; raises BadRowError where it is of no use."""
        try:
            found = self.data[place]
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise BadRowError(
                row,
                lambda name: (
                    f"Expected `{self.argument}` to give row {name}, but reading it raised {said}. "
                    "Fix the data set, or leave the row out."
                ),
            ) from error
        try:
            return split_item(found, self.fields, self.argument)
        except DataError as error:
            said = str(error)
            raise BadRowError(row, lambda name: f"{said} (Row {name}.)") from error


@final
@dataclass(frozen=True, slots=True)
class _Seen:
    """What reading some or all of the rows has shown."""

    form: Form | None
    labels: ReadLabels
    ids: tuple[Any, ...] | None
    notes: tuple[str, ...]


def from_dataset(
    data: Any,
    ids: Sequence[Any] | None,
    argument: str,
    fields: Fields | None = None,
    places: Sequence[int] | None = None,
) -> Rows:
    """View a map-style dataset, or the rows at `places` of it.

    Labels are those of its items. `targets` or `labels` spare reading them all where they agree
    with two items of each class and 64 others. Raises DataError with the id of a row that cannot be
    read, is not finite, or has another form than the others.
    """
    chosen = range(_length(data, argument)) if places is None else places
    texts = None if ids is None else checked_ids(ids, len(chosen), argument)
    source = _Source(
        data=data, places=chosen, given=texts, fields=fields or Fields(), argument=argument
    )
    try:
        seen = _seen(source)
    except BadRowError as error:
        raise error.named([source.name(row) for row in range(len(chosen))]) from error
    own = checked_ids(seen.ids, len(chosen), argument) if seen.ids is not None else None
    known = texts or own or id_texts(chosen, argument)
    return Rows(
        labels=seen.labels.numbers,
        ids=known,
        index=torch.arange(len(chosen)),
        read=_reader(source, seen),
        given_ids=ids is not None or own is not None,
        notes=tuple(dict.fromkeys((*seen.notes, *seen.labels.notes))),
        names=seen.labels.names,
    )


def _length(data: Any, argument: str) -> int:
    try:
        return len(data)
    except Exception as error:
        raise DataError(
            f"Expected `{argument}` to say how many rows it has, but `len` raised "
            f"{type(error).__name__}: {error}. Give the data set a `__len__`."
        ) from error


def _seen(source: _Source) -> _Seen:
    n = len(source.places)
    if not n:
        return _Seen(None, ReadLabels(torch.zeros(0, dtype=torch.int64)), None, ())
    first = source.item(source.places[0], 0)
    told = None if first.id is not None and source.given is None else _attribute(source)
    if told is None:
        return _all_read(source, ())
    name, labels = told
    sample = _sample(labels)
    items = {row: source.item(source.places[row], row) for row in sample}
    if any(item.label != int(labels[row]) for row, item in items.items()):
        word = f"`{name}` of `{source.argument}` differs from the labels of its items, which count"
        return _all_read(source, (word,))
    forms = {row: form_of(item.inputs) for row, item in items.items()}
    usual = _usual(forms)
    for row, item in items.items():
        refuse_other_form(forms[row], usual, row, source.argument)
        _refuse_not_finite(item, row, source.argument)
    notes = tuple(dict.fromkeys(note for item in items.values() for note in item.notes))
    found = numbered(labels.tolist(), _names(source), source.argument, _classes(source))
    return _Seen(usual, found, None, notes)


def _all_read(source: _Source, notes: tuple[str, ...]) -> _Seen:
    """Read every row once."""
    labels, ids, forms, said = [], [], dict[int, Form](), dict.fromkeys(notes)
    for row, place in enumerate(source.places):
        item = source.item(place, row)
        _refuse_not_finite(item, row, source.argument)
        labels.append(item.label)
        ids.append(item.id)
        forms[row] = form_of(item.inputs)
        said |= dict.fromkeys(item.notes)
    usual = _usual(forms)
    for row, form in forms.items():
        refuse_other_form(form, usual, row, source.argument)
    own = None
    if source.given is None and any(i is not None for i in ids):
        without = next((row for row, i in enumerate(ids) if i is None), None)
        if without is not None:
            raise TaskError(
                f"Expected an id in every item of `{source.argument}`, got none in row {without}. "
                "Give each record one, or pass `ids`."
            )
        own = tuple(ids)
    found = numbered(labels, _names(source), source.argument, _classes(source))
    return _Seen(usual, found, own, tuple(said))


def _names(source: _Source) -> list[str]:
    return [source.name(row) for row in range(len(source.places))]


def _classes(source: _Source) -> Any:
    return named_classes(source.fields.classes)


def _usual(forms: dict[int, Form]) -> Form:
    return Counter(forms.values()).most_common(1)[0][0]


def _refuse_not_finite(item: Item, row: int, argument: str) -> None:
    parts = {"": item.inputs} if isinstance(item.inputs, Tensor) else item.inputs
    if not_finite_row({name: value[None] for name, value in parts.items()}) is not None:
        raise BadRowError(
            row,
            lambda name: (
                f"Expected finite inputs in `{argument}`, got NaN or infinity in row {name}. Clean "
                "the data, or check its normalisation (a division by zero?)."
            ),
        )


def _attribute(source: _Source) -> tuple[str, Tensor] | None:
    """Whole numbers that the data set keeps as labels of its rows: the attribute, and those."""
    for name in ("targets", "labels"):
        found = _kept_numbers(source, name)
        if found is not None:
            return name, found[torch.tensor(list(source.places), dtype=torch.int64)]
    return None


def _kept_numbers(source: _Source, name: str) -> Tensor | None:
    try:
        raw = getattr(source.data, name, None)
        if raw is None or callable(raw) or len(raw) != len(source.data):
            return None
        found = labels_of(raw, [str(i) for i in range(len(raw))], source.argument)
    except Exception:  # noqa: BLE001 - whatever it is, it tells no labels: the items do
        return None
    return found.numbers if found.names is None else None


def _sample(labels: Tensor) -> list[int]:
    """Some rows: the first, the last, the first and last of each class, and 64 at random."""
    n = len(labels)
    own = torch.Generator().manual_seed(0)
    chosen = {0, n - 1, *torch.randperm(n, generator=own)[:_SAMPLE].tolist()}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for row, label in enumerate(labels.tolist()):
        first.setdefault(label, row)
        last[label] = row
    return sorted(chosen | set(first.values()) | set(last.values()))


def _reader(source: _Source, seen: _Seen) -> Any:
    names = seen.labels.names
    number = {} if names is None else {name: n for n, name in enumerate(names.names)}

    def class_of(label: int | str, row: int) -> int:
        if isinstance(label, int):
            return label
        if label in number:
            return number[label]
        try:
            return int(label)
        except ValueError as error:
            said = f"Expected the same labels each time in `{source.argument}`, got {label!r}"
            raise BadRowError(row, lambda name: f"{said} in row {name}.") from error

    def read(index: Tensor) -> tuple[Inputs, Tensor]:
        # the first row tells the shape of none
        wanted = index.tolist() or [0]
        items = [source.item(source.places[row], at) for at, row in enumerate(wanted)]
        for at, item in enumerate(items):
            if seen.form is not None:
                refuse_other_form(form_of(item.inputs), seen.form, at, source.argument)
        labels = torch.tensor([class_of(item.label, at) for at, item in enumerate(items)])
        return _stacked([item.inputs for item in items], len(index)), labels[: len(index)]

    return read


def _stacked(inputs: Sequence[Inputs], n: int) -> Inputs:
    first = inputs[0]
    if isinstance(first, Tensor):
        return torch.stack([value for value in inputs if isinstance(value, Tensor)])[:n]
    rows = [value for value in inputs if isinstance(value, dict)]
    return {name: torch.stack([row[name] for row in rows])[:n] for name in first}
