"""Settings for the whole suite: one thread, no randomness of its own, real data on request."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# The shapes written in the types of the mathematics are checked at every call of every test.
install_import_hook(
    [
        "expunge.functional",
        "expunge.methods.mu_mis.sensitivity",
        "expunge.methods.prototypes.solve",
        "expunge.methods.prune.gates",
        "expunge.methods.prune.merging",
        "expunge.methods.prune.published.forget",
        "expunge.methods.prune.published.regions",
        "expunge.methods.prune.separate",
        "expunge.methods.prune.targets",
    ],
    "beartype.beartype",
)

settings.register_profile(
    "expunge",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("expunge")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the public data sets; tests that use it carry the mark `data`."""
    folder = os.environ.get("EXPUNGE_DATA")
    if not folder:
        pytest.skip("EXPUNGE_DATA does not name the folder with the real data sets")
    return Path(folder)
