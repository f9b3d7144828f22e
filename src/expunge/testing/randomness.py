"""Promises about chance: the seed alone decides, and global generators are left where they were."""

from __future__ import annotations

import random

import numpy as np
import torch

from expunge.testing.shared import Subject, global_state

__all__ = ["global_randomness_untouched", "same_seed_same_bytes", "seed_without_effect"]


def same_seed_same_bytes(subject: Subject) -> None:
    """The seed alone decides: same bytes whatever the global random state was."""
    made = subject.toy()
    digests = set()
    for start in (1, 2):
        torch.manual_seed(start)
        np.random.seed(start)
        random.seed(start)
        digests.add(subject.run(made, seed=5).record.digest_after)
    subject.require(len(digests) == 1, "the same seed gave different weights")


def seed_without_effect(subject: Subject) -> None:
    """Not declared `stochastic`: every seed gives the same bytes."""
    digests = {subject.run(subject.toy(), seed=seed).record.digest_after for seed in (1, 2)}
    subject.require(len(digests) == 1, "the seed matters, but `info.stochastic` is not declared")


def global_randomness_untouched(subject: Subject) -> None:
    """The generators of torch, numpy and random are where they were."""
    before = global_state()
    subject.run(subject.toy())
    subject.require(global_state() == before, "global random state moved")
