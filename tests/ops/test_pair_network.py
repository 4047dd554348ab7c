"""The chunked network of pairs against torch's own layers."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hepattn.nn.pair_bias import PairNetwork
from hepattn.ops import pair_network

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_network, "CHUNK", 7)


def make(activate_last: bool = True, widths: tuple[int, ...] = (6, 6, 3)) -> PairNetwork:
    network = PairNetwork(4, widths, activate_last).to(DOUBLE)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_floating_point():
            shift = 1.0 if name.endswith(("weight", "var")) and tensor.dim() == 1 else 0.0
            tensor.data.uniform_(-0.5, 0.5).add_(shift)
    return network


def reference(network: PairNetwork) -> nn.Sequential:
    return nn.Sequential(*deepcopy(network))


@pytest.mark.parametrize("activate_last", [True, False])
@pytest.mark.parametrize("num_pairs", [0, 1, 7, 30])
def test_inference_is_that_of_the_layers(activate_last: bool, num_pairs: int) -> None:
    network = make(activate_last).eval()
    x = torch.randn(4, num_pairs, dtype=DOUBLE)
    with torch.no_grad():
        assert_close(network(x), reference(network).eval()(x.T).T)


@pytest.mark.parametrize("activate_last", [True, False])
@pytest.mark.parametrize("widths", [(6, 6, 3), (3,), (5, 8, 2)])
def test_training_is_that_of_the_layers(activate_last: bool, widths: tuple[int, ...]) -> None:
    network = make(activate_last, widths)
    layers = reference(network)
    x = torch.randn(4, 30, dtype=DOUBLE) * 3 + 100  # far from zero
    weight = torch.randn(widths[-1], 30, dtype=DOUBLE)
    outs = [network(x), layers(x.T).T]
    for out in outs:
        (out * weight).sum().backward()
    assert_close(*outs)
    for found, expected in zip(network.parameters(), layers.parameters(), strict=True):
        assert_close(found.grad, expected.grad)
    for found, expected in zip(network.buffers(), layers.buffers(), strict=True):
        assert_close(found, expected)


def test_frozen_layers_are_those_of_evaluation_with_gradients() -> None:
    network = make().eval()
    x = torch.randn(4, 9, dtype=DOUBLE)
    out = network(x)
    assert_close(out, reference(network).eval()(x.T).T)
    out.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
