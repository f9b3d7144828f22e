"""Randomness is isolated: the caller's generators are put back, also after an exception."""

import random

import numpy as np
import pytest
import torch

from expunge.runtime.randomness import isolated, preserved

CPU = torch.device("cpu")


def _state():
    return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()


def _draw(generator):
    return (
        torch.rand(2).tolist(),
        float(np.random.rand()),
        random.random(),
        torch.rand(2, generator=generator).tolist(),
    )


def test_same_seed_same_draws_and_state_restored():
    before = _state()
    drawn = []
    for _ in range(2):
        with isolated(11, CPU) as generator:
            drawn.append(_draw(generator))
        assert _state() == before
    assert drawn[0] == drawn[1]
    with isolated(12, CPU) as generator:
        assert _draw(generator) != drawn[0]


def test_state_is_restored_after_an_exception():
    before = _state()

    def fail():
        with isolated(0, CPU) as generator:
            _draw(generator)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _state() == before


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1])
def test_large_seeds_are_fine(seed):
    with isolated(seed, CPU) as generator:
        assert 0 <= float(torch.rand(1, generator=generator)) < 1


def test_accelerators_are_not_reseeded(monkeypatch):
    called = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", called.append)
    with isolated(0, CPU):
        pass
    assert not called


def test_a_data_set_that_draws_from_global_randomness_moves_nothing():
    @preserved()
    def door():
        _draw(torch.Generator())

    before = _state()
    door()
    assert _state() == before
