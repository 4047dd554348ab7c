"""A mixture of experts against a loop over tokens."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.dense import Dense
from hepattn.nn.moe import MixtureOfExperts, auxiliary_losses

VALID = torch.arange(9) < torch.tensor([[9], [0], [4]])


def loop(net: MixtureOfExperts, x: Tensor, valid: Tensor) -> Tensor:
    """Token by token, first choices before second ones, an event at a time."""
    num_experts, top_k = len(net.experts), net.top_k
    out = torch.zeros_like(x)
    for event in range(len(x)):
        n = int(valid[event].sum())
        room = [math.inf] * num_experts
        if net.capacity_factor is not None:
            room = [math.ceil(net.capacity_factor * top_k * n / num_experts)] * num_experts
        probabilities = (x[event, :n] @ net.router.weight.T).softmax(-1)
        for rank in range(top_k):
            for token in range(n):
                best = probabilities[token].argsort(descending=True)[:top_k]
                chosen = best[rank]
                if room[chosen] > 0:
                    room[chosen] -= 1
                    gate = probabilities[token, chosen]
                    if top_k > 1:
                        gate = gate / probabilities[token, best].sum()
                    out[event, token] += gate * net.experts[chosen](x[event, token])
    return out


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("capacity_factor", [None, 0.4, 1.25])
def test_output_equals_a_loop_over_tokens(top_k: int, capacity_factor: float | None) -> None:
    net = MixtureOfExperts(6, num_experts=4, top_k=top_k, capacity_factor=capacity_factor)
    x = torch.randn(3, 9, 6)
    assert_close(net(x, VALID), loop(net, x, VALID), atol=1e-6, rtol=1e-5)


def test_equal_experts_are_one_dense_net() -> None:
    dense = Dense(6)
    net = MixtureOfExperts(6, 3, top_k=3, expert=lambda dim: copy.deepcopy(dense))
    x = torch.randn(2, 5, 6)
    assert_close(net(x), dense(x), atol=1e-6, rtol=1e-5)


def test_tokens_beyond_an_experts_capacity_get_nothing() -> None:
    net = MixtureOfExperts(4, num_experts=2, top_k=1, capacity_factor=0.5)
    with torch.no_grad():  # everybody wants expert 0, which takes ceil(0.5 * 8 / 2) = 2
        net.router.weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
    out = net(torch.rand(1, 8, 4) + 0.1)
    assert (out[0, :2] != 0).all()
    assert (out[0, 2:] == 0).all()


def test_events_and_padding_do_not_touch_each_other() -> None:
    net = MixtureOfExperts(6, capacity_factor=0.8)
    x = torch.randn(3, 9, 6)
    together = net(x.masked_fill(~VALID.unsqueeze(-1), 1e6), VALID)
    assert (together[~VALID] == 0).all()
    assert_close(together[2, :4], net(x[2:, :4])[0], atol=1e-6, rtol=1e-5)


def test_loss_is_its_weight_if_all_experts_are_used_alike() -> None:
    net = MixtureOfExperts(4, num_experts=4, top_k=1, weight=0.3)
    with torch.no_grad():
        net.router.weight.copy_(torch.eye(4))
    net(torch.eye(4).repeat(1, 2, 1))
    assert_close(net.auxiliary_loss, torch.tensor(0.3))


def test_loss_counts_real_tokens_only() -> None:
    net = MixtureOfExperts(6, top_k=2, weight=1.0)
    x = torch.randn(3, 9, 6)
    net(x, VALID)
    found = net.auxiliary_loss
    probabilities = (x[VALID] @ net.router.weight.T).softmax(-1)  # (tokens, X)
    counts = torch.zeros(4)
    for row in probabilities:
        counts[row.argsort(descending=True)[:2]] += 1
    assert_close(found, 4 * (counts / counts.sum() * probabilities.mean(0)).sum())


def test_losses_of_a_network_are_summed_in_training_and_absent_in_evaluation() -> None:
    net = nn.Sequential(MixtureOfExperts(6), nn.LayerNorm(6), MixtureOfExperts(6))
    net(torch.randn(2, 5, 6))
    total = auxiliary_losses(net)["load_balance"]
    assert_close(total, net[0].auxiliary_loss + net[2].auxiliary_loss)
    net.eval()(torch.randn(2, 5, 6))
    assert auxiliary_losses(net) == {}


@pytest.mark.parametrize("top_k", [1, 2])
def test_router_and_experts_get_gradients(top_k: int) -> None:
    for through_loss in (False, True):
        net = MixtureOfExperts(6, top_k=top_k)
        out = net(torch.randn(3, 30, 6))
        (net.auxiliary_loss if through_loss else out.square().sum()).backward()
        assert net.router.weight.grad.abs().max() > 0
        if not through_loss:
            assert all(p.grad.abs().max() > 0 for p in net.parameters())


def test_an_empty_batch_has_finite_gradients() -> None:
    net = MixtureOfExperts(6, capacity_factor=1.0)
    out = net(torch.randn(2, 5, 6), torch.zeros(2, 5).bool())
    (out.sum() + net.auxiliary_loss).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_a_network_with_a_loss_can_be_copied() -> None:
    net = MixtureOfExperts(6)
    net(torch.randn(2, 5, 6))
    assert copy.deepcopy(net).auxiliary_loss is None
    assert net.auxiliary_loss is not None


def test_autocast_does_not_change_who_goes_where() -> None:
    net = MixtureOfExperts(16, top_k=1)
    x = torch.randn(2, 50, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
    assert_close(out.float(), net(x), atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 5}, "top_k=5 must be between 1 and num_experts=4"),
        ({"top_k": 0}, "top_k=0"),
        ({"capacity_factor": 0.0}, "capacity_factor=0.0"),
        ({"weight": -1.0}, "weight=-1.0"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureOfExperts(8, **options)
