"""Batch normalisation over real tokens is torch's on the real tokens alone."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.batch_norm import MaskedBatchNorm


def make() -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
    ours, peer = MaskedBatchNorm(4), nn.BatchNorm1d(4)
    nn.init.uniform_(ours.weight, 0.5, 1.5)
    nn.init.normal_(ours.bias)
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def random_tokens(*lengths: int) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return 3 + 2 * torch.randn(*valid.shape, 4), valid


def assert_same_statistics(ours: nn.BatchNorm1d, peer: nn.BatchNorm1d) -> None:
    assert_close(dict(ours.named_buffers()), dict(peer.named_buffers()))


def test_training_normalises_by_the_statistics_of_the_real_tokens() -> None:
    ours, peer = make()
    x, valid = random_tokens(5, 0, 3)
    out = ours(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid)
    assert_close(out[valid], peer(x[valid]))
    assert (out[~valid] == 0).all()
    assert_same_statistics(ours, peer)


def test_evaluation_uses_what_training_has_seen() -> None:
    ours, peer = make()
    x, valid = random_tokens(5, 0, 3)
    for _ in range(2):
        ours(x, valid), peer(x[valid])
    ours.eval(), peer.eval()
    out = ours(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid)
    assert_close(out[valid], peer(x[valid]))
    assert (out[~valid] == 0).all()
    assert_same_statistics(ours, peer)


@pytest.mark.parametrize("training", [True, False])
def test_without_padding_it_is_the_norm_of_torch(training: bool) -> None:
    ours, peer = make()
    ours.train(training), peer.train(training)
    x, _ = random_tokens(5, 5)
    expected = peer(x.transpose(1, 2)).transpose(1, 2)
    for found in (make_copy(ours)(x), make_copy(ours)(x, torch.ones(2, 5, dtype=torch.bool))):
        assert_close(found, expected)
    assert_close(make_copy(ours)(x.flatten(0, 1)), expected.flatten(0, 1))


def make_copy(norm: MaskedBatchNorm) -> MaskedBatchNorm:
    other = MaskedBatchNorm(4).train(norm.training)
    other.load_state_dict(norm.state_dict())
    return other


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_the_real_tokens(training: bool) -> None:
    ours, peer = make()
    ours.train(training), peer.train(training)
    x, valid = random_tokens(5, 0, 3)
    weight = torch.randn(x.shape)
    ours_x, peer_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(ours_x, valid) * weight).sum().backward()
    (peer(peer_x[valid]) * weight[valid]).sum().backward()
    assert_close(ours_x.grad, peer_x.grad)
    assert_close(ours.weight.grad, peer.weight.grad)
    assert_close(ours.bias.grad, peer.bias.grad)


def test_a_batch_without_tokens_leaves_the_statistics() -> None:
    ours, _ = make()
    before = [buffer.clone() for buffer in (ours.running_mean, ours.running_var)]
    x, valid = random_tokens(3, 2)
    out = ours(x, torch.zeros_like(valid))
    assert (out == 0).all()
    assert_close([ours.running_mean, ours.running_var], before)


def test_autocast_keeps_padding_zero() -> None:
    ours, _ = make()
    x, valid = random_tokens(5, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours(x.bfloat16(), valid)
    assert (out[~valid] == 0).all()
    assert_close(out[valid].float().mean(0), ours.bias, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("num_real", [0, 1])
def test_too_few_real_tokens_for_a_variance_take_the_running_statistics(num_real: int) -> None:
    norm = MaskedBatchNorm(3)
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    valid = torch.arange(2).unsqueeze(0) < num_real
    x = torch.randn(1, 2, 3, requires_grad=True)
    out = norm(x, valid)
    expected = torch.where(valid.unsqueeze(-1), (x - 2) / (4 + norm.eps) ** 0.5, 0.0)
    assert_close(out, expected)
    assert (norm.running_mean == 2).all()


def test_gradients_of_the_weights_know_no_padding_in_evaluation() -> None:
    norm = MaskedBatchNorm(3).eval()
    x = torch.tensor([[[1.0, 2.0, 3.0], [math.nan] * 3]])
    norm(x, torch.tensor([[True, False]])).sum().backward()
    assert norm.weight.grad.isfinite().all()
