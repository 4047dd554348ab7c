"""An edge convolution gives what a loop over edges gives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn import edge_conv
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.edge_conv import EdgeConv
from models.jet_network_cases import settle


def make(dim: int = 4, widths: tuple[int, ...] = (6, 5, 8)) -> EdgeConv:
    layer = EdgeConv(dim, widths).double().eval()
    settle(layer)
    return layer


def random_graph(num_tokens: int = 7, dim: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(num_tokens, dim, dtype=torch.float64)
    return x, torch.randint(num_tokens + 1, (num_tokens, 3))


def normalise(norm: MaskedBatchNorm, x: Tensor, training: bool) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean, variance = x.mean(0), x.var(0, correction=0)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def loop(layer: EdgeConv, x: Tensor, neighbours: Tensor, training: bool) -> Tensor:
    rows = [*x, torch.zeros_like(x[0])]
    pairs = [(i, j) for i, near in enumerate(neighbours.tolist()) for j in near]
    edges = torch.stack([torch.cat([rows[i], rows[j] - rows[i]]) for i, j in pairs])
    for linear, norm in zip(layer.maps, layer.norms, strict=True):
        edges = F.relu(normalise(norm, edges @ linear.weight.T, training))
    starts = torch.tensor([i for i, _ in pairs])
    mean = torch.stack([edges[starts == i].mean(0) for i in range(len(x))])
    shortcut = x
    if layer.shortcut is not None:
        shortcut = normalise(layer.shortcut_norm, x @ layer.shortcut.weight.T, training)
    return F.relu(shortcut + mean)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("widths", [(6, 5, 8), (5, 4)], ids=["shortcut", "no shortcut"])
def test_output_and_gradients_are_those_of_a_loop(widths: tuple[int, ...], training: bool) -> None:
    layer = make(widths=widths).train(training)
    x, neighbours = random_graph()
    expected = loop(layer, x.requires_grad_(), neighbours, training)
    out = layer(x, neighbours)
    assert_close(out, expected)
    weight, leaves = torch.randn_like(out), [x, *layer.parameters()]
    assert_close(
        torch.autograd.grad(out, leaves, weight), torch.autograd.grad(expected, leaves, weight)
    )


def test_slices_of_edges_give_what_all_edges_give(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make()
    x, neighbours = random_graph()
    expected = layer(x, neighbours)
    monkeypatch.setattr(edge_conv, "EDGE_VALUES", 50)  # two tokens a slice
    with torch.no_grad():
        assert_close(layer(x, neighbours), expected)


def test_a_graph_without_tokens_has_no_output() -> None:
    layer = make()
    x, neighbours = random_graph(0)
    with torch.no_grad():
        assert layer(x, neighbours).shape == (0, 8)
    assert layer.train()(x, neighbours).shape == (0, 8)
