"""Digests, hook counts, layouts: each sees what it must and nothing else."""

import pytest
import torch
from torch import nn

from expunge.network.calls import frozen_statistics
from expunge.network.state import (
    count_changed,
    digest_of,
    hook_count,
    layout_of,
    not_finite,
    restore_layout,
    state_of,
)

A = torch.arange(6.0).reshape(2, 3)


def _net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "other",
    [
        {"b": A},
        {"a": A.reshape(3, 2)},
        {"a": A.double()},
        {"a": A + torch.tensor([0.0, 0, 1e-6])},
        {"a": A, "b": torch.empty(0)},
        {"a": A * torch.tensor([-1.0, 1, 1])},
    ],
    ids=["name", "shape", "dtype", "value", "extra", "sign of zero"],
)
def test_digest_sees(other):
    assert digest_of({"a": A}) != digest_of(other)


def test_digest_ignores_memory_layout_and_order():
    assert digest_of({"a": A, "b": A + 1}) == digest_of({"b": A + 1, "a": A.T.contiguous().T})
    half = A.bfloat16()
    assert digest_of({"a": half}) == digest_of({"a": half.clone()})


def test_digest_is_the_published_recipe():
    # A format: SHA-256 of b"sha256-state-v1\0" + b"a\0float32\0002,3\0" + the bytes.
    import hashlib

    raw = b"sha256-state-v1\0" + b"a\0float32\0" + b"2,3\0" + A.numpy().tobytes()
    assert digest_of({"a": A}) == hashlib.sha256(raw).hexdigest()


def test_state_holds_buffers_that_are_not_saved_too():
    net = _net()
    net.register_buffer("scratch", torch.ones(1), persistent=False)
    assert {"scratch", "1.running_mean", "0.weight"} <= set(state_of(net))


def test_not_finite_names_the_tensors():
    state = {"a": A, "b": torch.tensor([1.0, torch.nan]), "c": torch.tensor([torch.inf])}
    assert not_finite(state | {"n": torch.tensor([1])}) == ["b", "c"]


def test_hooks_of_every_kind_are_counted():
    net = _net()
    assert hook_count(net) == 0
    handles = [
        net[0].register_forward_hook(lambda *_: None),
        net[0].register_forward_pre_hook(lambda *_: None),
        net[3].register_full_backward_hook(lambda *_: None),
        net.register_state_dict_pre_hook(lambda *_: None),
    ]
    assert hook_count(net) == 4
    for handle in handles:
        handle.remove()
    assert hook_count(net) == 0


def test_changes_are_counted_entry_by_entry():
    other = A.clone()
    other[0, 1] += 1
    nan = torch.tensor([torch.nan, 1.0])
    assert count_changed({"a": A}, {"a": A.clone()}) == 0
    assert count_changed({"a": A}, {"a": other}) == 1
    assert count_changed({"a": A}, {"a": A.double()}) == 6
    assert count_changed({"a": A}, {"b": other}) == 6
    assert count_changed({"a": nan}, {"a": nan.clone()}) == 0
    assert count_changed({"a": torch.tensor([0.0, 1.0])}, {"a": torch.tensor([-0.0, 1.0])}) == 1
    assert count_changed({"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0)}) == 1
    assert count_changed({"a": torch.tensor([True])}, {"a": torch.tensor([False])}) == 1
    assert count_changed({"a": torch.empty(0, 3)}, {"a": torch.empty(0, 3)}) == 0
    assert count_changed({"a": torch.tensor([1, 2])}, {"a": torch.tensor([1, 3])}) == 1


def test_a_new_name_changes_nothing_where_the_content_is_the_same():
    assert count_changed({"a": A, "b": A}, {"inner.a": A.clone(), "inner.b": A.clone()}) == 0
    assert count_changed({"a": A}, {"inner.a": A, "inner.b": A}) == 6, "the second is new"
    assert count_changed({"a": A}, {"a": A, "b": A}) == 6, "what is still there is not renamed"
    assert count_changed({"a": A}, {"inner.a": A.double()}) == 6
    assert count_changed({"a": A}, {"inner.a": A.reshape(3, 2)}) == 6
    assert count_changed({"a": torch.empty(0, 3)}, {"b": torch.empty(0, 3)}) == 0


def test_layout_round_trip():
    net = _net()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    layout = layout_of(net)
    net.eval()
    for parameter in net.parameters():
        parameter.requires_grad_(True)
        parameter.grad = torch.zeros_like(parameter)
    assert layout_of(net) != layout
    restore_layout(net, layout)
    assert layout_of(net) == layout
    assert all(p.grad is None for p in net.parameters())


def test_frozen_statistics_restores_each_mode_also_after_an_exception():
    net = _net()
    net[2].eval()
    modes = [m.training for m in net.modules()]
    before = digest_of(state_of(net))

    def fail():
        with frozen_statistics(net):
            assert not any(m.training for m in net.modules())
            net(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [m.training for m in net.modules()] == modes
    assert digest_of(state_of(net)) == before
