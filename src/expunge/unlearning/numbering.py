"""Class numbers against the model: each label an output, and each output the class it is meant."""

from __future__ import annotations

from expunge.data.rows import Rows
from expunge.errors import DataError

__all__ = ["refuse_misnumbered", "refuse_renamed"]


def refuse_misnumbered(name: str, rows: Rows, whole: Rows, classes: int) -> None:
    """Raise DataError where labels are no outputs of the model, or sorted names are not all.

    `rows` are some of the `whole`, whose labels tell whether they count from 1.
    """
    names = rows.names
    if names is not None and not names.given and len(names.names) != classes:
        raise DataError(
            f"Expected names of all the model's {classes} classes as labels of `{name}`, got "
            f"{len(names.names)}: sorted, they would be numbered otherwise than in training. List "
            "the names in the order of the model's outputs: `as_rows(data, "
            "fields=Fields(classes=[...]))`, in a job `classes` under [data]."
        )
    if names is not None and len(names.names) > classes:
        raise DataError(
            f"Expected as many `classes` of the data as the model has, {classes}, got "
            f"{len(names.names)} names. Leave out what the model does not know."
        )
    if not len(rows) or int(rows.labels.max()) < classes:
        return
    most, least = int(rows.labels.max()), int(whole.labels.min())
    shifted = least >= 1 and int(whole.labels.max()) == classes
    place = int((rows.labels == most).nonzero()[0, 0])
    raise DataError(
        f"Expected labels of `{name}` below the model's {classes} classes, got {most} (in row "
        f"{rows.ids[place]}). "
        + (
            f"They run from {least} to {most}: subtract 1, so that they run from 0."
            if shifted
            else "Check the label numbering."
        )
    )


def refuse_renamed(before: tuple[str, ...] | None, rows: Rows) -> None:
    """Raise DataError where class numbers stand for other names than in an earlier request."""
    if before is not None and rows.names is not None and rows.names.names != before:
        raise DataError(
            f"Expected the class names of the earlier requests, {len(before)} from {before[0]!r} "
            f"on, got {len(rows.names.names)} from {rows.names.names[0]!r} on: numbers would stand "
            "for other classes. List the names as then: `Fields(classes=[...])`, in a job "
            "`classes` under [data]."
        )
