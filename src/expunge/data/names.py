"""Names of classes: which number stands for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from expunge.errors import DataError

__all__ = ["ClassNames", "named_classes", "refuse_other_names"]


@final
@dataclass(frozen=True, slots=True)
class ClassNames:
    """The names of the classes 0, 1, ...; `given` by the caller, else those of the labels, sorted.

    Sorted names are those of one data set: they serve only where they are as many as the model's
    classes.
    """

    names: tuple[str, ...]
    given: bool = False


def named_classes(classes: Sequence[Any] | ClassNames | None) -> ClassNames | None:
    """The names as the caller lists them, by number; raises DataError for doubles and no texts."""
    if classes is None or isinstance(classes, ClassNames):
        return classes
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Sequence) or not classes:
        raise DataError(
            f"Expected `classes` of the data to be a list of names, one a class, got {classes!r}."
        )
    wrong = next((name for name in classes if not isinstance(name, str)), None)
    if wrong is not None:
        raise DataError(
            f"Expected `classes` of the data to be names, got {wrong!r}. Labels that are numbers "
            "need none."
        )
    if len(set(classes)) < len(classes):
        double = next(name for n, name in enumerate(classes) if name in classes[:n])
        raise DataError(
            f"Expected each name once in `classes` of the data, got {double!r} twice. List the "
            "names in the order of the model's outputs."
        )
    return ClassNames(tuple(classes), given=True)


def refuse_other_names(train: ClassNames | None, other: ClassNames | None) -> None:
    """Raise DataError where class numbers of the holdout stand for other names than in `train`."""
    same = (train and train.names) == (other and other.names)
    if same or (other is None and train is not None and train.given):
        return
    raise DataError(
        "Expected `holdout` to name its classes as the training rows do, got "
        f"{_counted(other)} where those have {_counted(train)}: the same number could stand for "
        "another class. List the names in the order of the model's outputs, for both: "
        "`Fields(classes=[...])`, in a job `classes` under [data]."
    )


def _counted(names: ClassNames | None) -> str:
    if names is None:
        return "numbers"
    how = "listed" if names.given else "sorted"
    return f"{len(names.names)} {how} names, the first {names.names[0]!r}"
