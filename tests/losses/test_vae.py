"""Losses of variational autoencoders against closed forms, zero at truth, growing with a shift."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from hepattn.losses.vae import (
    FreeBits,
    count_loss,
    gaussian_kl,
    kl_weight,
    latent_loss,
    quantile_loss,
    sliced_loss,
    soft_bound,
    temperature,
    weighted_squared_error,
)


def test_divergence_is_the_closed_form() -> None:
    mean, log_variance = torch.randn(2, 5, 3).double()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert_close(gaussian_kl(mean, log_variance), expected)
    assert_close(latent_loss(mean, log_variance), expected.sum(1).mean())


def test_free_bits_cost_nothing_below_their_number() -> None:
    mean, log_variance = torch.zeros(4, 3), torch.zeros(4, 3)
    mean[:, 0], mean[:, 1] = 2.0, 0.2  # KL of 2 and 0.02 nats
    mean.requires_grad_()
    for free, expected in (
        (FreeBits(0.5), 2.0 + 0.5 + 0.5),
        (FreeBits(0.5, "excess"), 1.5),
    ):
        mean.grad = None
        loss = latent_loss(mean, log_variance, free)
        loss.backward()
        assert loss.item() == pytest.approx(expected)
        assert (mean.grad[:, 0] != 0).all()
        assert (mean.grad[:, 1:] == 0).all()


def test_floor_looks_at_the_mean_over_the_batch() -> None:
    mean = torch.tensor([[2.0], [0.0]])  # KL of 2 and 0, in the mean 1
    assert latent_loss(mean, torch.zeros(2, 1), FreeBits(0.5)).item() == pytest.approx(1.0)
    assert latent_loss(mean, torch.zeros(2, 1), FreeBits(0.5, "excess")).item() == pytest.approx(
        0.75
    )


def test_wrong_free_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="nats=-1"):
        FreeBits(-1)
    with pytest.raises(ValueError, match="mode='none'"):
        FreeBits(0.1, "none")


def test_soft_bound_keeps_its_interval_and_its_gradients() -> None:
    x = torch.tensor([-20.0, -1.5, 20.0], requires_grad=True)
    bounded = soft_bound(x, -6, 3)
    assert_close(bounded, torch.tensor([-6.0, -1.5, 3.0]), atol=0.02, rtol=0)
    bounded.sum().backward()
    assert (x.grad > 0).all()


def test_schedules_follow_their_formulas() -> None:
    assert [kl_weight(t, 15, 0.3) for t in (0, 7.5, 15, 40)] == pytest.approx([0, 0.15, 0.3, 0.3])
    assert kl_weight(0, 0) == 1.0
    assert temperature(10, 5.0, 0.5, 0.98) == pytest.approx(5.0 * 0.98**10)
    assert temperature(1000, 5.0, 0.5, 0.98) == 0.5


def test_counts_are_compared_with_the_true_number() -> None:
    logits = torch.zeros(2, 10)
    logits[:, 3] = 50.0  # four particles
    count = torch.tensor([4, 4])
    assert count_loss(logits, count).item() == pytest.approx(0.0, abs=1e-6)
    assert count_loss(logits, count, "squared").item() == pytest.approx(0.0, abs=1e-6)
    assert count_loss(logits, count + 3, "squared").item() == pytest.approx(0.09)
    assert count_loss(torch.zeros(2, 10), count).item() == pytest.approx(math.log(10))


@pytest.mark.parametrize("power", [1, 2])
def test_quantile_loss_vanishes_at_truth_and_grows_with_a_shift(power: int) -> None:
    true = torch.randn(3, 50)
    shuffled = true[:, torch.randperm(50)]
    assert_close(quantile_loss(shuffled, true, power=power), torch.zeros(3))
    shifts = [quantile_loss(shuffled + s, true, power=power) for s in (0.1, 0.2)]
    assert_close(shifts[0], torch.full((3,), 0.1**power))
    assert_close(shifts[1], torch.full((3,), 0.2**power))


def test_quantile_loss_has_gradients_and_leaves_out_what_has_no_weight() -> None:
    found, true = torch.randn(2, 8, requires_grad=True), torch.randn(2, 20)
    weight = torch.ones(2, 8)
    weight[0, 5:], weight[1] = 0.0, 0.0
    loss = quantile_loss(found, true, weight)
    assert loss[1] == 0
    loss.sum().backward()
    assert (found.grad[0, :5] != 0).all()
    assert (found.grad[0, 5:] == 0).all()
    assert (found.grad[1] == 0).all()


def test_sliced_loss_sees_what_single_observables_do_not() -> None:
    first = torch.randn(400)
    true = torch.stack([first, first])
    found = torch.stack([first, first[torch.randperm(400)]])  # the same, apart
    assert_close(quantile_loss(found, true), torch.zeros(2))
    assert sliced_loss(found, true, 20).item() > 0.05
    assert sliced_loss(true[:, torch.randperm(400)], true, 20).item() < 1e-6


def test_columns_have_their_weights() -> None:
    found, true = torch.tensor([[1.0, 2.0], [1.0, 0.0]]), torch.zeros(2, 2)
    assert weighted_squared_error(found, true, (2.5, 0.5)).item() == pytest.approx(3.5)
