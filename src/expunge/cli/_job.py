"""The job file: its keys, their types, and messages that name the key and the cure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.errors import JobError
from expunge.runtime.imports import FORM, nearest
from expunge.settings import settings_of

__all__ = ["Job", "checked_fields", "read_job"]

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
_CALLABLE = 'a callable as "package.module:name"'
_LISTS = "a .txt, .csv, .npy or .npz file"
_VIEWS = '"images", "none", or a callable as "package.module:name"'
_ROWS = 'a callable as "package.module:name", or an npz file with x and y'


@final
class ModelTable(BaseModel):
    """[model]: how the model is built, and where its weights are."""

    model_config = _STRICT
    factory: str = Field(description=_CALLABLE, pattern=":")
    kwargs: dict[str, Any] = Field(default={}, description="a table of arguments")
    weights: str | None = Field(default=None, description="a safetensors file")
    run: str | None = Field(default=None, description="a run folder")
    initial: str | None = Field(default=None, description="a safetensors file")
    head: str | None = Field(default=None, description="the name of an nn.Linear of the model")


@final
class DataTable(BaseModel):
    """[data]: the rows; `forget` stands instead of `train`."""

    model_config = _STRICT
    train: str | None = Field(default=None, description=_ROWS)
    holdout: str | None = Field(default=None, description=_ROWS)
    forget: str | None = Field(default=None, description=_ROWS)
    input: str | int | None = Field(default=None, description="a name, or a place from 0")
    label: str | int | None = Field(default=None, description="a name, or a place from 0")
    classes: list[str] | str | None = Field(
        default=None, description="a list of class names, or a file of them"
    )
    ids: str | None = Field(default=None, description=f"{_LISTS}, one id a row")
    statistics: str | None = Field(default=None, description="a file of feature statistics")
    views: str | None = Field(
        default=None, description=_VIEWS, pattern=rf"^(images|none|{FORM.pattern})$"
    )
    repeats: Literal["error", "expected"] = Field(
        default="error", description='"error" or "expected"'
    )


@final
class ForgetTable(BaseModel):
    """[forget]: exactly one of classes, indices and ids."""

    model_config = _STRICT
    classes: list[int] | list[str] | str | None = Field(
        default=None, description=f"a list of class numbers or names, or {_LISTS}"
    )
    indices: list[int] | str | None = Field(
        default=None, description=f"a list of row numbers, or {_LISTS}"
    )
    ids: list[str] | list[int] | str | None = Field(
        default=None, description=f"a list of ids, or {_LISTS}"
    )
    already: Literal["error", "skip"] = Field(default="error", description='"error" or "skip"')
    aim: Literal["absent", "unseen"] | None = Field(
        default=None, description='"absent" (classes) or "unseen" (records)'
    )


@final
class ReferencesTable(BaseModel):
    """[references]: models retrained without the forget set."""

    model_config = _STRICT
    retrained: list[str] = Field(
        default=[], description="a list of run folders or safetensors files"
    )


@final
class Job(BaseModel):
    """One job file. The tables of methods, training and limits are checked by `checked_fields`."""

    model_config = _STRICT
    folder: Annotated[Path, Field(exclude=True)]
    seed: int = Field(default=0, ge=0, lt=2**63, description="an integer from 0")
    model: ModelTable = Field(description="a table with factory and weights")
    data: DataTable = Field(description="a table with train or forget")
    forget: ForgetTable | None = Field(default=None, description="a table")
    method: dict[str, Any] | None = Field(default=None, description="a table with a name")
    training: dict[str, Any] | None = Field(default=None, description="a table")
    references: ReferencesTable = Field(default=ReferencesTable(), description="a table")
    limits: dict[str, Any] = Field(default={}, description="a table")

    def place(self, text: str) -> Path:
        """A path of the job: relative ones start at the job's folder."""
        return self.folder / text


_TABLES: dict[str, type[BaseModel]] = {
    "model": ModelTable,
    "data": DataTable,
    "forget": ForgetTable,
    "references": ReferencesTable,
}


def read_job(path: Path) -> Job:
    """Read and check a job file; raises JobError before anything is loaded."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise JobError(
            f"Expected a job file at {path}, found none. Write one with `expunge init {path}`."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise JobError(
            f"Expected {path} to be TOML, but reading it raised: {error}. Fix that line."
        ) from error
    _refuse_unknown(raw, [k for k in Job.model_fields if k != "folder"], "")
    for name, model in _TABLES.items():
        if isinstance(raw.get(name), dict):
            _refuse_unknown(raw[name], model.model_fields, name)
    try:
        job = Job.model_validate({**raw, "folder": path.absolute().parent})
    except ValidationError as error:
        raise JobError(_explained(error, raw)) from error
    _check_choices(job)
    return job


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], name: str) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            where = f"[{name}]" if name else "the job"
            what = "key" if name else "table or key"
            raise JobError(
                f"Expected known keys in {where}, got the unknown {what} {key!r}. "
                + nearest(key, known)
            )


def _explained(error: ValidationError, raw: Mapping[str, Any]) -> str:
    first = error.errors(include_url=False)[0]
    parts = [str(p) for p in first["loc"]]
    fields, value = Job.model_fields, raw.get(parts[0])
    description = fields[parts[0]].description
    name = parts[0]
    if len(parts) > 1 and parts[0] in _TABLES and isinstance(value, dict):
        fields, name = _TABLES[parts[0]].model_fields, f"{parts[0]}.{parts[1]}"
        description, value = fields[parts[1]].description, value.get(parts[1])
    if first["type"] == "missing":
        return f"Expected `{name}` in the job ({description}), got nothing. Add it."
    return f"Expected `{name}` to be {description}, got {value!r}."


def _check_choices(job: Job) -> None:
    model, data, forget = job.model, job.data, job.forget
    if (model.weights is None) == (model.run is None):
        raise JobError(
            "Expected exactly one of `weights` and `run` in [model], got "
            + ("neither. Name the trained weights." if model.weights is None else "both.")
        )
    if (data.train is None) == (data.forget is None):
        raise JobError(
            "Expected exactly one of `train` and `forget` in [data], got "
            + ("neither." if data.train is None else "both. The forget rows are in `train`.")
        )
    if forget is not None:
        given = [k for k in ("classes", "indices", "ids") if getattr(forget, k) is not None]
        if len(given) != 1:
            raise JobError(
                "Expected exactly one of `classes`, `indices` and `ids` in [forget], got "
                + (" and ".join(given) or "none of them")
                + "."
            )
        if given[0] != "classes" and data.train is None:
            raise JobError(
                f"Expected `train` in [data] for a request by {given[0]}, got `forget` alone. "
                "Records are looked up among the training rows."
            )
    if job.method is not None and not isinstance(job.method.get("name"), str):
        raise JobError(
            "Expected `method.name` to name a method, got nothing. See `expunge methods`."
        )


def checked_fields(
    kind: type[Any],
    table: Mapping[str, Any],
    name: str,
    *,
    written: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The entries of `table` as arguments of the dataclass `kind`, each checked as its field says.

    A number without a point stands for a field of real numbers too, and a list for a tuple.
    `written` has the keys of the job file where they are others than those of `table`.
    """
    settings = {setting.name: setting for setting in settings_of(kind)}
    _refuse_unknown(table, settings, name)
    values = {}
    for key, value in table.items():
        setting = settings[key]
        given = tuple(value) if isinstance(value, list) else value
        if not setting.holds(given):
            mistyped = setting.choices and isinstance(value, str)
            hint = f" {nearest(value, setting.choices)}" if mistyped else ""
            if key in written:
                hint += f" In the job it is `{written[key]}`, its name in earlier versions."
            raise JobError(setting.refusal(value, f"{name}.{key}") + hint)
        values[key] = setting.kept(given)
    return values
