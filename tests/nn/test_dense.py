"""Dense nets follow their formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.dense import Dense


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize(("name", "function"), [("swiglu", silu), ("geglu", gelu)])
def test_gated_nets_multiply_one_half_with_the_activated_other(name: str, function: type) -> None:
    net = Dense(4, 3, hidden=5, activation=name)
    x = torch.randn(2, 7, 4)
    hidden = x @ net.expand.weight.T + net.expand.bias
    gated = hidden[..., :5] * function(hidden[..., 5:])
    assert_close(net(x), gated @ net.contract.weight.T + net.contract.bias)


def test_plain_gelu_has_no_gate() -> None:
    net = Dense(4, hidden=5, activation="gelu", bias=False)
    x = torch.randn(2, 4)
    assert_close(net(x), gelu(x @ net.expand.weight.T) @ net.contract.weight.T)


def test_sizes_by_default_are_twice_the_input_inside_and_the_input_outside() -> None:
    net = Dense(6)
    assert net.contract.weight.shape == (6, 12)


def test_dropout_acts_in_training_only() -> None:
    net = Dense(8, dropout=0.5)
    x = torch.randn(4, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert_close(net(x), net(x))
