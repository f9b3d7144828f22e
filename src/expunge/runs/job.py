"""The job of a run, as it is stored: in full for its owner, and as it may be shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from expunge.records import to_json
from expunge.results.forgotten import commitment
from expunge.results.unlearned import Unlearned

__all__ = ["ResolvedJob", "full_job", "public_job"]


_HIDDEN = "private"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedJob:
    """What a run was asked to do: `settings` table by table, every default filled in.

    `files` are SHA-256 digests of the files it names, under keys such as `model.weights`; `folder`
    is where relative paths start. All is given in full: `save_run` decides what leaves `private/`.
    """

    settings: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""


def full_job(result: Unlearned, job: ResolvedJob | None) -> dict[str, Any]:
    """The job with nothing left out; for a run made in Python, what the record tells of it."""
    if job is not None:
        return dict(job.settings)
    latest, record = result.forgotten[-1], result.record
    forget: dict[str, Any] = {"aim": latest.aim}
    if latest.scope == "classes":
        forget["classes"] = sorted(latest.classes)
    else:
        forget["ids"] = [*latest.ids, *result.refused]
    names = {} if result.class_names is None else {"data": {"classes": list(result.class_names)}}
    return {
        "seed": record.seed,
        **names,
        "forget": forget,
        "method": {"name": record.method, **record.settings},
        "limits": json.loads(to_json(record.limits)),
    }


def public_job(
    result: Unlearned, full: Mapping[str, Any], job: ResolvedJob | None
) -> dict[str, Any]:
    """The job as it may be shared: commitments instead of selections, no digest that gives away."""
    public = {k: dict(v) if isinstance(v, Mapping) else v for k, v in full.items()}
    public["forget"] = {
        "aim": result.record.aim,
        "scope": result.record.scope,
        "commitment": result.record.commitment,
        "commitments_before": [commitment(r) for r in result.forgotten[:-1]],
    }
    hidden = {"forget.classes", "forget.indices", "forget.ids"}
    data = public.get("data")
    if isinstance(data, dict) and data.get("forget") is not None:
        hidden |= {"data.forget", "data.ids"}
        data.update({k: _HIDDEN for k in ("forget", "ids") if data.get(k) is not None})
    if isinstance(data, dict) and data.get("classes") is not None:  # names can be those of people
        hidden.add("data.classes")
        data["classes"] = _HIDDEN
    if job is not None:
        public["files"] = {k: v for k, v in job.files.items() if k not in hidden}
    seed = result.split_seed  # of runs from before the content decided
    return public if seed is None else {"split_seed": seed, **public}
