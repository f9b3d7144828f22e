"""Plain ReLU MLPs are read by one walk, and taken only as exactly as the caller asks."""

import pytest
import torch
from torch import nn

from expunge.certificate.facts import Layer
from expunge.data.views import as_rows
from expunge.errors import ModelError
from expunge.methods.prune.mlp import bit_for_bit, layers_before, read_mlp, within_1e_5
from expunge.network.heads import find_head

K = 4


def _rows(m, n=12):
    return torch.rand(m, n, generator=torch.Generator().manual_seed(5000))


class _Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, K)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.c(h + torch.relu(self.b(h)))


class _Functional(nn.Module):
    """A plain MLP whose ReLU is no module, and that may be off by a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.body, self.head, self.factor = nn.Linear(12, 8), nn.Linear(8, K), factor

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu() * self.factor)


def _made(kind, *given):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(*given)


@pytest.mark.parametrize("accept", [bit_for_bit, within_1e_5])
def test_any_nesting_of_linear_and_relu_is_read(accept):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(12, 8), nn.Sequential(nn.ReLU(), nn.Dropout(0.5))),
        nn.Linear(8, 8, bias=False),
        nn.ReLU(inplace=True),
        nn.Sequential(),
        nn.Linear(8, K),
    ).train()
    mlp = read_mlp(net, _rows(3), accept)
    assert mlp.names == ("1.0", "2", "5")
    layers = mlp.matrices()
    assert [tuple(w.shape) for w, _ in layers] == [(8, 12), (8, 8), (K, 8)]
    assert net.training
    assert net[1][1][1].training
    assert not layers[1][1].any()


@pytest.mark.parametrize("accept", [bit_for_bit, within_1e_5])
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, K)), "got Tanh at '1'"),
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(8, K)), "got Conv1d at '0'"),
        (nn.Linear(12, K), "got 1 nn.Linear"),
        (_Skip(), "12 → 12 → 12 → 4"),
        (nn.Sequential(nn.Linear(12, 8), nn.Linear(8, K)), "12 → 8 → 4"),
        (nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, K), nn.ReLU()), "logits differ"),
    ],
)
def test_other_models_are_refused_by_name(net, message, accept):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=message):
        read_mlp(net, _rows(5), accept)


def test_what_differs_by_rounding_is_taken_within_1e_5_alone():
    net = _made(_Functional, 1 + 1e-6)
    assert read_mlp(net, _rows(3), within_1e_5).sizes() == "12 → 8 → 4"
    with pytest.raises(ModelError, match="logits differ"):
        read_mlp(net, _rows(3), bit_for_bit)


def test_what_differs_only_where_other_units_are_on_is_found():
    net = _made(_Functional)
    plain = net.forward
    net.forward = lambda x: plain(x.clamp(min=-1.0))
    read_mlp(net, _rows(3), bit_for_bit)
    with pytest.raises(ModelError, match="logits differ"):
        read_mlp(net, _rows(3), within_1e_5)


def test_layers_before_the_head_are_named_with_a_relu_after_each():
    net, x = _made(_Functional), _rows(5)
    rows, head = as_rows((x, torch.zeros(5).long())), find_head(net, x)
    assert layers_before(net, head, rows) == (
        Layer(op="linear", weight="body.weight", bias="body.bias"),
        Layer(op="relu"),
    )


def test_a_weight_that_is_made_at_every_call_has_no_layer():
    net, x = _made(_Functional), _rows(5)
    rows, head = as_rows((x, torch.zeros(5).long())), find_head(net, x)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(net.body)
    assert layers_before(net, head, rows) == ()
    assert layers_before(net.double(), head, as_rows((x.double(), rows.labels))) == ()
