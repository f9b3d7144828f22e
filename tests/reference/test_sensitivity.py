"""MU-Mis's loss against independent derivations, in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from expunge.methods.mu_mis.sensitivity import (
    Loss,
    draw_irrelevant,
    sensitivities,
    sensitivity_gradients,
)
from expunge.models import CifarResNet

PUBLISHED = Loss(scale=1.0, cap=float("inf"))


class Attention(nn.Module):
    """Patches, one attention block with fused attention, mean, head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(t)).chunk(3, dim=-1)
        t = t + nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(t.mean(1))


def relu_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=3),
        nn.BatchNorm2d(12, affine=False),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3, padding="same"),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 4, 5),
    )


def smooth_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.GELU(),
        nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4, 5),
    )


NETS = {
    "relu": relu_net,
    "smooth": smooth_net,
    "resnet": lambda: CifarResNet(1, 5, widths=(4, 8, 8)),
    "attention": Attention,
}


def setup(name: str) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETS[name]().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
        x = torch.randn(7, 3, 8, 8, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    other = (labels + torch.tensor([1, 2, 3, 4, 1, 2, 3])) % 5
    return model.eval(), x, labels, other


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for n, p, g in zip(names, parameters, found, strict=True)
    }


def ours(
    model: nn.Module, x: Tensor, labels: Tensor, other: Tensor, loss: Loss = PUBLISHED
) -> tuple[Tensor, dict]:
    """What the descent computes: the loss and its gradient, from sums over the rows."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    sums = sensitivity_gradients(model, x, labels, other, parameters)
    value = torch.tensor(loss.of(sums), dtype=x.dtype)
    return value, dict(zip(names, loss.gradient(sums), strict=True))


def loop(
    model: nn.Module, x: Tensor, labels: Tensor, other: Tensor, irrelevant: float = 1.0
) -> tuple[Tensor, dict]:
    """One sample at a time, plain autograd, nothing of ours; `irrelevant` weighs that term."""
    parts = []
    for i in range(len(x)):
        one = x[i : i + 1].clone().requires_grad_(True)
        terms = []
        for c in (labels[i], other[i]):
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                logit = model(one)[0, c]
            terms.append(torch.autograd.grad(logit, one, create_graph=True)[0].square().sum())
        parts.append(terms[0] - irrelevant * terms[1])
    loss = torch.stack(parts).mean()
    return loss.detach(), gradients(model, loss)


def same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    scale = max(float(v.abs().max()) for v in b.values())
    for name in b:
        assert float((a[name] - b[name]).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", NETS)
def test_batched_equals_a_loop_over_samples(name):
    case = setup(name)
    value, found = ours(*case)
    expected, slow = loop(*case)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    same(found, slow, 1e-10)


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")  # inside torch.func
@pytest.mark.parametrize("name", ["relu", "smooth", "resnet"])
def test_agrees_with_reverse_over_forward(name):
    """∇_w ‖g‖² = 2 ∇_w JVP(f_c; g) with g held fixed: no double backward at all."""
    model, x, labels, other = setup(name)
    _, found = ours(model, x, labels, other)
    plain = x.clone().requires_grad_(True)
    logits = model(plain)
    total = torch.zeros((), dtype=torch.float64)
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    for sign, classes in ((1.0, labels), (-1.0, other)):
        picked = logits.gather(1, classes[:, None]).sum()
        (g,) = torch.autograd.grad(picked, plain, retain_graph=True)

        def forward(inputs: Tensor) -> Tensor:
            return functional_call(model, {**parameters, **buffers}, (inputs,))

        _, tangent = jvp(forward, (x,), (g,))
        total = total + sign * 2.0 * tangent.gather(1, classes[:, None]).sum() / len(x)
    same(found, gradients(model, total), 1e-10)


def test_closed_form_of_a_linear_model():
    """f = Wx: L = ‖W_c‖² − ‖W_c'‖², ∇ = 2W_c, −2W_c'."""
    model = nn.Linear(6, 4).double()
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, other = torch.tensor([1, 1, 1]), torch.tensor([3, 3, 3])
    loss, found = ours(model, x, labels, other)
    w = model.weight.detach()
    torch.testing.assert_close(loss, w[1].square().sum() - w[3].square().sum())
    expected = torch.zeros_like(w)
    expected[1], expected[3] = 2 * w[1], -2 * w[3]
    torch.testing.assert_close(found["weight"], expected)
    assert not found["bias"].any()


def test_finite_differences_on_a_smooth_net():
    model, x, labels, other = setup("smooth")
    _, found = ours(model, x, labels, other)
    generator = torch.Generator().manual_seed(1)
    direction = {
        n: torch.randn(p.shape, dtype=p.dtype, generator=generator)
        for n, p in model.named_parameters()
    }
    h = 1e-5
    values = []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for n, p in moved.named_parameters():
                p.add_(direction[n], alpha=sign * h)
        values.append(float(ours(moved, x, labels, other)[0]))
    slope = sum(float((found[n] * d).sum()) for n, d in direction.items())
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-6)


def test_scaling_laws():
    model, x, labels, other = setup("resnet")
    loss, _ = ours(model, x, labels, other)
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.linear.weight.mul_(3.0)
        scaled.linear.bias.add_(5.0)
    torch.testing.assert_close(ours(scaled, x, labels, other)[0], 9.0 * loss)


def test_train_mode_is_another_loss():
    """In train mode batch norm couples samples: the batched trick must not agree with the loop."""
    model, x, labels, other = setup("resnet")
    model.train()
    value, _ = ours(copy.deepcopy(model), x, labels, other)
    model.eval()
    expected, _ = loop(model, x, labels, other)
    assert abs(float(value) / float(expected) - 1) > 0.05


def test_buffers_and_modules_are_as_before():
    model, x, labels, other = setup("relu")
    before = {n: b.clone() for n, b in model.named_buffers()}
    keys = {n: set(vars(m)) for n, m in model.named_modules()}
    ours(model, x, labels, other)
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
    assert keys == {n: set(vars(m)) for n, m in model.named_modules()}
    assert model[2](torch.tensor([-1.0])).item() == 0.0


def test_looking_sees_the_norms_that_the_loss_is_made_of():
    for name in NETS:
        model, x, labels, other = setup(name)
        target, irrelevant, logits = sensitivities(model, x, labels, other)
        value, _ = ours(model, x, labels, other)
        torch.testing.assert_close(PUBLISHED.value(target.mean(), irrelevant.mean()), value)
        torch.testing.assert_close(logits, model(x).detach())
        assert not target.requires_grad


def test_cap_takes_the_gradient_of_the_irrelevant_term_away():
    model, x, labels, other = setup("relu")
    _, irrelevant, _ = sensitivities(model, x, labels, other)
    cap = 0.5 * float(irrelevant.mean())
    _, capped = ours(model, x, labels, other, Loss(scale=2.0, cap=cap))
    _, slow = loop(model, x, labels, other, irrelevant=0.0)
    same(capped, {n: g / 2.0 for n, g in slow.items()}, 1e-12)


@pytest.mark.parametrize("kept", [[0, 1], [0, 2, 3, 7], list(range(10))])
def test_irrelevant_classes_are_stratified_and_never_gone(kept):
    generator = torch.Generator().manual_seed(0)
    stay = torch.tensor(kept)
    gone = torch.full((103,), 5 if 5 not in kept else 99)
    drawn = draw_irrelevant(gone, stay, generator)
    counts = torch.tensor([int((drawn == c).sum()) for c in kept])
    assert int(counts.sum()) == 103
    assert int(counts.max() - counts.min()) <= 1
    own = stay[torch.arange(101) % len(kept)]
    drawn = draw_irrelevant(own, stay, generator)
    assert bool(torch.isin(drawn, stay).all())
    assert not bool((drawn == own).any())
    again = draw_irrelevant(gone, stay, torch.Generator().manual_seed(3))
    assert torch.equal(again, draw_irrelevant(gone, stay, torch.Generator().manual_seed(3)))


def test_relu_in_place_as_a_statement():
    """`x.relu_()` without using what it returns changes x inside the loss too."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.one(x)
            h.relu_()
            return self.two(h)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = InPlace().double().eval(), torch.randn(5, 4, dtype=torch.float64)
    labels, other = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0])
    _, _, logits = sensitivities(model, x, labels, other)
    torch.testing.assert_close(logits, model(x).detach())
    value, found = ours(model, x, labels, other)
    expected, slow = loop(model, x, labels, other)
    torch.testing.assert_close(value, expected)
    same(found, slow, 1e-10)
