"""Batch normalisation over real tokens is torch's on the real tokens alone."""

import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
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


def assert_same_statistics(ours: nn.Module, peer: nn.BatchNorm1d) -> None:
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


def test_conversion_for_distributed_training_leaves_it_alone() -> None:
    ours, peer = make()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(ours))[0]
    x, valid = random_tokens(5, 0, 3)
    assert_close(converted(x, valid)[valid], peer(x[valid]))
    assert_same_statistics(converted, peer)


BATCHES = ((4, 1), (0, 0), (1, 0))  # lengths of two events, each for one process, in turn


def train(norm: MaskedBatchNorm, events: slice) -> list[list[Tensor]]:
    """Train on some of the two events of each batch; answers, gradients and statistics."""
    results = []
    for number, lengths in enumerate(BATCHES):
        torch.manual_seed(number)
        x, valid = random_tokens(*lengths, 4)
        x, valid = x[:2] + 100, valid[:2]
        weight = torch.randn(x.shape)
        x = x[events].clone().requires_grad_()
        norm.zero_grad()
        out = norm(x, valid[events])
        (out * weight[events]).sum().backward()
        gradients = [x.grad, norm.weight.grad, norm.bias.grad]
        results.append([out, *gradients, *(buffer.clone() for buffer in norm.buffers())])
    return results


def run_process(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(str(folder / "store"), 2),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    try:
        torch.save(train(make_seeded(), slice(rank, rank + 1)), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def make_seeded() -> MaskedBatchNorm:
    torch.manual_seed(7)
    return make()[0]


def test_two_processes_train_as_one_with_both_their_batches(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_process, (tmp_path,), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for whole, *both in zip(train(make_seeded(), slice(None)), *parts, strict=True):
        together = [torch.cat(pair) for pair in zip(*(part[:2] for part in both), strict=True)]
        summed = [sum(pair) for pair in zip(*(part[2:4] for part in both), strict=True)]
        assert_close([*together, *summed], whole[:4], atol=1e-4, rtol=1e-4)
        for part in both:
            assert_close(part[4:], whole[4:], atol=1e-5, rtol=1e-5)
