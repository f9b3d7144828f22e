"""Every error that Expunge raises on purpose, in one tree.

    ExpungeError                      exit code 2
    ├── InputError                    an argument, file or setting is wrong; nothing was started
    │   ├── TaskError                 the request: ids, classes, aim, overlap
    │   ├── DataError                 the data set: shapes, labels, determinism, reading
    │   ├── ModelError                the model: head, weights, outputs, support
    │   ├── StatisticsError           FeatureStatistics that do not fit or cannot be downdated
    │   ├── JobError                  the job file
    │   └── OutputError               the place results should go to
    ├── UnsupportedError              a method cannot serve this request or model
    ├── MethodError                   a method failed while it ran (not finite, no progress)
    └── ContractError                 a method broke a promise; the fault is the method's

Messages say what was expected, what came, and what to do.
"""

from __future__ import annotations

__all__ = [
    "ContractError",
    "DataError",
    "ExpungeError",
    "InputError",
    "JobError",
    "MethodError",
    "ModelError",
    "OutputError",
    "StatisticsError",
    "TaskError",
    "UnsupportedError",
]


class ExpungeError(Exception):
    """The root of the tree: catch this to catch everything Expunge raises on purpose."""


class InputError(ExpungeError):
    """An argument, a file or a setting is wrong; no work was started."""


class TaskError(InputError):
    """The forget request is wrong: unknown, duplicate or overlapping ids, classes, aim."""


class DataError(InputError):
    """The data set is wrong: shapes, labels, random items, unreadable rows."""


class ModelError(InputError):
    """The model is wrong: no linear head, weights that do not fit or are not finite."""


class StatisticsError(InputError):
    """Feature statistics belong to another backbone, or a removal from them is impossible."""


class JobError(InputError):
    """The job file is wrong."""


class OutputError(InputError):
    """Results cannot be written where they were asked for."""


class UnsupportedError(ExpungeError):
    """The method cannot serve this request or this model; nothing was edited."""


class MethodError(ExpungeError):
    """The method failed while it ran; the user's model is untouched."""


class ContractError(ExpungeError):
    """A method broke a promise that every method makes (layout, finiteness, hooks, original)."""
