"""Patched heads: what they compute, and that they travel in a state dict."""

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from expunge.errors import ModelError
from expunge.patches.heads import (
    GatedLinear,
    NarrowLinear,
    export_narrow,
    gated,
    narrowed,
    patched_like,
    replaced,
)


def _linear(bias=True, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(5, 4, bias=bias).requires_grad_(requires_grad=False)


def _gates(p=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=g) for shape in ((p, 5), (p,), (4, p)))


@pytest.mark.parametrize("bias", [True, False])
def test_gated_head_equals_the_formula(bias):
    old, (u, c, shift) = _linear(bias), _gates()
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    expected = [
        [
            sum(old.weight[k, i] * row[i] for i in range(5))
            + (old.bias[k] if bias else 0)
            + sum(shift[k, p] * max(0.0, min(1.0, float(u[p] @ row + c[p]))) for p in range(3))
            for k in range(4)
        ]
        for row in z
    ]
    torch.testing.assert_close(gated(old, u, c, shift)(z), torch.tensor(expected))


def test_shut_gates_leave_the_logits_bit_identical():
    old, (u, _, shift) = _linear(), _gates()
    z = torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
    shut = gated(old, u, torch.full((3,), -1e4), shift)
    assert torch.equal(shut(z), old(z))


def test_gates_append():
    old, first, second = _linear(), _gates(2, 1), _gates(3, 5)
    both = gated(gated(old, *first), *second)
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    apart = gated(old, *first)(z) + gated(old, *second)(z) - old(z)
    torch.testing.assert_close(both(z), apart)
    assert both.gate_bias.shape == (5,)
    assert not any(
        p.requires_grad for n, p in both.named_parameters() if n not in ("weight", "bias")
    )


def test_narrow_head_gives_minus_infinity_at_removed_classes():
    old = _linear()
    new = narrowed(old, frozenset({1}), 4)
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    out = new(z)
    assert out.shape == (6, 4)
    assert bool((out[:, 1] == -torch.inf).all())
    assert torch.equal(
        out[:, [0, 2, 3]], nn.functional.linear(z, old.weight[[0, 2, 3]], old.bias[[0, 2, 3]])
    )
    again = narrowed(new, frozenset({3}), 4)
    assert again.kept.tolist() == [0, 2]
    assert torch.equal(
        again(z)[:, [0, 2]], nn.functional.linear(z, old.weight[[0, 2]], old.bias[[0, 2]])
    )


@pytest.mark.parametrize("kind", ["gated", "narrow"])
@pytest.mark.parametrize("name", ["", "1"])
def test_patched_heads_are_rebuilt_from_their_state(kind, name):
    old = _linear()
    head = gated(old, *_gates()) if kind == "gated" else narrowed(old, frozenset({2}), 4)
    model = replaced(nn.Sequential(nn.ReLU(), old), name, head)
    state = load(save({k: v.contiguous() for k, v in model.state_dict().items()}))
    empty = _linear(seed=9) if name == "" else nn.Sequential(nn.ReLU(), _linear(seed=9))
    back = patched_like(empty, name, state)
    back.load_state_dict(state)
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(back(z), model(z))
    assert type(back.get_submodule(name)) in (GatedLinear, NarrowLinear)


def test_a_state_without_a_patch_leaves_the_model_alone():
    model = nn.Sequential(_linear())
    assert patched_like(model, "0", model.state_dict()) is model
    assert type(model[0]) is nn.Linear


def test_a_patch_on_another_layer_is_refused():
    with pytest.raises(ModelError, match=r"to be nn\.Linear, got ReLU"):
        patched_like(nn.Sequential(nn.ReLU()), "0", {"0.gate_bias": torch.zeros(1)})


def test_a_head_that_the_factory_does_not_build_is_refused_with_the_cure():
    model = nn.Sequential(nn.Sequential(_linear()))
    with pytest.raises(ModelError, match=r"the head 'fc' to be in the model .* the one of the run"):
        patched_like(model, "fc", {"fc.kept": torch.arange(2)})


def test_export_gives_a_plain_model_with_its_classes():
    old = _linear()
    model = nn.Sequential(nn.ReLU(), narrowed(old, frozenset({0, 2}), 4))
    plain = export_narrow(model)
    assert plain.classes == (1, 3)
    assert type(plain.model[1]) is nn.Linear
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(plain.model(z), model(z)[:, [1, 3]])
    assert isinstance(model[1], NarrowLinear)


def test_export_refuses_other_models():
    with pytest.raises(ModelError, match="Forget a class with Prune first"):
        export_narrow(nn.Sequential(_linear()))
    with pytest.raises(ModelError, match=r"to be an nn\.Module, got dict\. .* `result\.model`"):
        export_narrow({})


def test_overflow_never_ends_at_a_removed_class():
    new = narrowed(_linear(), frozenset({0}), 4)
    out = new(torch.full((1, 5), 3e38) * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]) * 10)
    assert int(out.argmax(1)) != 0 or bool(torch.isnan(out).any())
    low = new(torch.full((3, 5), -torch.inf).nan_to_num(neginf=-3e38))
    assert bool((low[:, 0] == -torch.inf).all())
