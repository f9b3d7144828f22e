"""One item of a data set: what of it is input, label and id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from expunge.data.ids import ID_KEYS
from expunge.data.labels import label_of
from expunge.data.names import ClassNames
from expunge.data.plain import tensor_of
from expunge.data.rows import BadRowError, Inputs
from expunge.errors import DataError

__all__ = ["LABEL_KEYS", "Fields", "Form", "Item", "form_of", "refuse_other_form", "split_item"]

LABEL_KEYS = ("labels", "label", "y", "target")
"""Under which names a dict item holds its label."""

_ALONE = ({"x"}, {"image"})
"""Dict items with this input alone are handed to the model by position."""

Form = tuple[tuple[str, tuple[int, ...], Any], ...]
"""Name, shape and type of each part of a row's inputs."""


@final
@dataclass(frozen=True, slots=True)
class Fields:
    """Where a data set holds what: the key (or place) of `input` and `label`, and class names.

    By default items are (x, y), or dicts with one of the usual names of a label, and everything
    else as inputs. A named `input` is handed to the model by position. `classes` lists the names of
    the classes, by number, where labels are names.
    """

    input: str | int | None = None
    label: str | int | None = None
    classes: Sequence[str] | ClassNames | None = None


@final
@dataclass(frozen=True, slots=True)
class Item:
    """An item taken apart; `id` is None where it holds none, `notes` say how it was read."""

    inputs: Inputs
    label: int | str
    id: Any = None
    notes: tuple[str, ...] = field(default=())


def split_item(item: Any, fields: Fields, argument: str) -> Item:
    """Take one item apart; raises DataError for what is no input with one label."""
    if isinstance(item, Mapping):
        return _of_dict(item, fields, argument)
    if not isinstance(item, (tuple, list)):
        raise DataError(
            f"Expected rows of `{argument}` to be (x, y) pairs or dicts, got {type(item).__name__}."
        )
    x, y = _place(fields.input, 0, item, argument), _place(fields.label, 1, item, argument)
    notes: tuple[str, ...] = ()
    if len(item) > 2:
        hold = f"the items of `{argument}` hold {len(item)} entries"
        notes = (f"{hold}: entry {x} is read as the input, entry {y} as the label",)
    label, said = _label(item[y], argument)
    what = f"the inputs of `{argument}`"
    inputs: Inputs = (
        {str(k): tensor_of(v, what) for k, v in item[x].items()}
        if isinstance(item[x], Mapping)
        else tensor_of(item[x], what)
    )
    return Item(inputs, label, None, (*notes, *said))


def _place(named: str | int | None, usual: int, item: Sequence[Any], argument: str) -> int:
    """Which entry of a tuple it is; raises DataError for one that is not there."""
    place = usual if named is None else named
    if isinstance(place, int) and 0 <= place < len(item):
        return place
    hint = "" if named is None else f" without entry {named!r}. Give the entry's place, from 0"
    raise DataError(
        f"Expected rows of `{argument}` to be (x, y) pairs or dicts, got a {type(item).__name__} "
        f"of {len(item)}{hint}."
    )


def _of_dict(item: Mapping[Any, Any], fields: Fields, argument: str) -> Item:
    keys = LABEL_KEYS if fields.label is None else (fields.label,)
    key = next((k for k in keys if k in item), None)
    if key is None:
        raise DataError(
            f"Expected dict rows of `{argument}` to hold a label under one of "
            f"{', '.join(map(str, keys))}, got keys {sorted(map(str, item))}. Name it: "
            '`Fields(label="...")`, in a job `label` under [data].'
        )
    label, said = _label(item[key], argument)
    own = next((item[k] for k in ID_KEYS if k in item and k != key), None)
    if fields.input is not None:
        if fields.input not in item:
            raise DataError(
                f"Expected dict rows of `{argument}` to hold the input {fields.input!r}, got keys "
                f"{sorted(map(str, item))}."
            )
        inputs = tensor_of(item[fields.input], f"the inputs {fields.input!r} of `{argument}`")
        return Item(inputs, label, own, said)
    rest = {str(k): v for k, v in item.items() if k != key and k not in ID_KEYS}
    texts = sorted(k for k, v in rest.items() if isinstance(v, (str, bytes)) or v is None)
    if texts and len(texts) < len(rest):
        said = (
            *said,
            f"left out of the items of `{argument}`, since they are texts: {', '.join(texts)}",
        )
        rest = {k: v for k, v in rest.items() if k not in texts}
    if not rest:
        raise DataError(
            f"Expected dict rows of `{argument}` to hold an input beside the label {key!r}, got "
            f"keys {sorted(map(str, item))}."
        )
    parts = {k: tensor_of(v, f"the inputs {k!r} of `{argument}`") for k, v in rest.items()}
    alone = next(iter(parts.values())) if set(parts) in _ALONE else parts
    return Item(alone, label, own, said)


def _label(raw: Any, argument: str) -> tuple[int | str, tuple[str, ...]]:
    try:
        label, said = label_of(raw)
    except Exception as error:
        shown = repr(raw)
        raise DataError(
            f"Expected one whole number as label a row in `{argument}`, got "
            f"{shown[:80] + ('...' if len(shown) > 80 else '')}. Multi-label and regression "
            "targets are not supported. Where another entry is the label, name it: "
            "`Fields(label=...)`, in a job `label` under [data]."
        ) from error
    return label, (f"the labels of `{argument}` are {said}",) if said else ()


def form_of(inputs: Inputs) -> Form:
    """Name, shape and type of each part."""
    parts = {"": inputs} if isinstance(inputs, Tensor) else inputs
    return tuple((name, tuple(v.shape), v.dtype) for name, v in sorted(parts.items()))


def refuse_other_form(found: Form, usual: Form, place: int, argument: str) -> None:
    """Raise BadRowError where a row has another form than the others."""
    if found != usual:
        raise BadRowError(
            place,
            lambda row: (
                f"Expected the rows of `{argument}` to have one shape and type, got {_shown(found)}"
                f" in row {row} where others have {_shown(usual)}. Resize, pad or convert it in "
                'the data set (`.convert("RGB")` for images of another mode), or leave the row out.'
            ),
        )


def _shown(form: Form) -> str:
    return ", ".join(
        f"{name} {shape} {dtype}".strip().replace("torch.", "") for name, shape, dtype in form
    )
