"""Losses with a variance against closed forms, another library and their promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.losses.heteroscedastic import FaithfulLoss, GaussianNLL, HeteroscedasticLoss
from hepattn.losses.regression import RegressionLoss, TargetLoss
from hepattn.nn.regression_head import RegressionHead

LOSSES = (GaussianNLL, lambda: GaussianNLL(beta=0.5), FaithfulLoss)


def draw(num_events: int = 5, num_targets: int = 2) -> tuple[Tensor, Tensor]:
    output = torch.randn(num_events, 2 * num_targets, dtype=torch.float64, requires_grad=True)
    return output, torch.randn(num_events, num_targets, dtype=torch.float64)


def gradients(loss: TargetLoss, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the mean and of the log-variance, times the number of elements averaged over."""
    (grad,) = torch.autograd.grad(loss(output, target), output)
    return loss.split(grad * target.numel())


def test_faithful_mean_learns_from_the_residual_alone() -> None:
    output, target = draw()
    mean, log_variance = output.chunk(2, 1)
    of_mean, of_variance = gradients(FaithfulLoss(), output, target)
    assert_close(of_mean, mean - target)
    assert_close(of_variance, (1 - (target - mean) ** 2 / log_variance.exp()) / 2)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.floats(0, 1))
def test_beta_weighs_the_gradients_with_a_power_of_the_variance(beta: float) -> None:
    output, target = draw()
    variance = output[:, 2:].exp() ** beta
    plain = gradients(GaussianNLL(), output, target)
    found = gradients(GaussianNLL(beta), output, target)
    assert_close(found, tuple(variance.detach() * grad for grad in plain))


def test_beta_at_its_ends_is_nll_and_squared_error() -> None:
    output, target = draw()
    peer = nn.GaussianNLLLoss()(output[:, :2], target, output[:, 2:].exp())
    assert_close(GaussianNLL(beta=0.0)(output, target), peer)
    (of_mean, _), (mean, _) = gradients(GaussianNLL(beta=1.0), output, target), output.chunk(2, 1)
    assert_close(of_mean, mean - target)


def test_weights_are_those_of_a_weighted_likelihood() -> None:
    output, target = draw()
    weight = torch.rand(5, dtype=torch.float64)
    peer = nn.GaussianNLLLoss(reduction="none")(output[:, :2], target, output[:, 2:].exp())
    expected = (peer.mean(1) * weight).sum() / weight.sum()
    assert_close(GaussianNLL()(output, target, weight), expected)


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("start", [-30.0, 30.0])
def test_an_output_far_out_comes_back(make: type[HeteroscedasticLoss], start: float) -> None:
    """Its gradient is that at the end of the range; a plain clamp would have none."""
    loss, log_variance = make(), torch.tensor([[start]], requires_grad=True)
    for _ in range(400):
        output = torch.cat([torch.zeros(1, 1), log_variance], 1)
        (grad,) = torch.autograd.grad(loss(output, torch.ones(1, 1)), log_variance)
        log_variance.data -= 0.1 * grad.sign()
    assert abs(log_variance.item()) < 0.2  # the variance of a residual of one


@pytest.mark.parametrize("make", LOSSES)
def test_an_output_does_not_run_away(make: type[HeteroscedasticLoss]) -> None:
    """Without a residual the likelihood grows without end as the variance shrinks."""
    loss = make()
    output = torch.tensor([[0.0, -20.0]], requires_grad=True)
    loss(output, torch.zeros(1, 1)).backward()
    assert (output.grad == 0).all()
    assert_close(loss.standard_deviation(output), torch.tensor([[-7.0]]).exp())


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("value", [-1e30, 1e30])
def test_no_output_makes_the_loss_infinite(make: type[HeteroscedasticLoss], value: float) -> None:
    output = torch.tensor([[0.0, value]], requires_grad=True)
    loss = make()(output, torch.ones(1, 1))
    loss.backward()
    assert loss.isfinite()
    assert output.grad.isfinite().all()


def toy(num_events: int) -> tuple[Tensor, Tensor]:
    """A sine whose noise is large on one side (Seitzer et al. and Stirn et al. use such)."""
    x = torch.rand(num_events, 1) * 2 - 1
    return x, torch.sin(5 * x) + torch.randn_like(x) * (0.02 + 0.5 * (x > 0))


def fit(loss: TargetLoss, x: Tensor, y: Tensor) -> nn.Sequential:
    torch.manual_seed(1)  # the same start for all losses
    trunk = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
    torch.manual_seed(2)
    network = nn.Sequential(trunk, RegressionHead(32, 1, loss.variance))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(500):
        optimizer.zero_grad()
        loss(network(x), y).backward()
        optimizer.step()
    return network


def test_a_faithful_mean_is_as_good_as_one_without_variance() -> None:
    x, y = toy(256)
    true_x = torch.linspace(-1, 1, 201).unsqueeze(1)
    errors, networks = {}, {}
    for name, loss in {"mean": RegressionLoss("mse"), "faithful": FaithfulLoss()}.items():
        networks[name] = network = fit(loss, x, y)
        mean, _ = loss.split(network(true_x).detach())
        errors[name] = float((mean - torch.sin(5 * true_x)).square().mean())
    assert errors["faithful"] <= 1.1 * errors["mean"]
    deviation = FaithfulLoss().standard_deviation(networks["faithful"](true_x).detach())
    assert 0.35 < float(deviation[120:].mean()) < 0.65  # the noise is 0.52
    assert float(deviation[:80].mean()) < 0.12
