"""Stacked members answer as networks of their own."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.ensemble import EnsembleHead, EnsembleNetwork, StackedLayerNorm, StackedLinear
from hepattn.training.optimizer import parameter_groups

DIM, MEMBERS, EVENTS = 6, 3, 5


def alone(head: EnsembleHead, member: int) -> nn.Sequential:
    """One member as torch's own layers, with its share of the parameters."""
    layers: list[nn.Module] = []
    for layer in head.layers:
        if isinstance(layer, StackedLinear):
            own: nn.Module = nn.Linear(*layer.weight.shape[1:])
            own.weight.data, own.bias.data = layer.weight[member].T, layer.bias[member]
        elif isinstance(layer, StackedLayerNorm):
            own = nn.LayerNorm(layer.weight.shape[1])
            own.weight.data, own.bias.data = layer.weight[member], layer.bias[member]
        else:
            own = layer
        layers.append(own)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("layernorm", [False, True])
@pytest.mark.parametrize("hidden", [(), (4,), (8, 4)])
def test_each_member_is_a_network_of_its_own(hidden: tuple[int, ...], layernorm: bool) -> None:
    head = EnsembleHead(DIM, MEMBERS, hidden, "Tanh", layernorm=layernorm)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(EVENTS, DIM)
    expected = torch.cat([alone(head, member)(x) for member in range(MEMBERS)], 1)
    assert_close(head(x), expected)


def test_a_member_learns_from_its_own_answer_alone() -> None:
    head = EnsembleHead(DIM, MEMBERS, (4,), layernorm=True)
    head(torch.randn(EVENTS, DIM))[:, 1].sum().backward()
    for name, parameter in head.named_parameters():
        touched = parameter.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [False, True, False], name


def test_members_begin_differently_and_like_a_linear_map() -> None:
    weight = StackedLinear(50, 100, 40).weight
    assert weight.std(0).min() > 0
    assert_close(weight.abs().max(), torch.tensor(0.1), atol=1e-3, rtol=0)
    assert_close(weight.std(), nn.Linear(100, 2000).weight.std(), atol=1e-3, rtol=0)


def test_dropout_drops_while_training_alone() -> None:
    head = EnsembleHead(DIM, MEMBERS, (32,), dropout=0.5)
    x = torch.randn(EVENTS, DIM)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))


def test_heads_read_what_the_network_says() -> None:
    trunk, head = nn.Linear(2, DIM), EnsembleHead(DIM, MEMBERS)
    x = torch.randn(EVENTS, 2)
    out: Tensor = EnsembleNetwork(trunk, head)(x)
    assert out.shape == (EVENTS, MEMBERS)
    assert_close(out, head(trunk(x)))


def test_weights_alone_decay() -> None:
    head = EnsembleHead(DIM, MEMBERS, (4,), layernorm=True)
    decayed, plain = (group["params"] for group in parameter_groups(head))
    assert [tuple(p.shape) for p in decayed] == [(MEMBERS, DIM, 4), (MEMBERS, 4, 1)]
    assert len(plain) == 4


def test_one_member_has_no_spread() -> None:
    with pytest.raises(ValueError, match="num_members=1 must be at least 2"):
        EnsembleHead(DIM, 1)
