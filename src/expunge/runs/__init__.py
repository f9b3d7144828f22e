"""The run folder: written once, as a whole; read back in a fresh process.

    RUN/job.toml                  resolved, with digests of named files and no selection
    RUN/model.safetensors         or rejected.safetensors, where the outcome is not accepted
    RUN/record.json
    RUN/statistics.safetensors    where kept, without ids
    RUN/certificate.dsse.json     where the method makes one, with `signatures: []` until signed
    RUN/features.safetensors      with a certificate: for the auditor, mode 0600, never published
    RUN/audits/<utc>-<digest8>/   added later, one folder an audit
    RUN/private/                  mode 0700: the full job, ids, classes, labels, salts

Everything outside `private/` may be shared. Without `private/` a run can be loaded and used, but
not unlearned further: what it forgot would be unknown.
"""

from __future__ import annotations

from expunge.runs.job import ResolvedJob
from expunge.runs.loading import load_run
from expunge.runs.saving import save_audit, save_run

__all__ = ["ResolvedJob", "load_run", "save_audit", "save_run"]
