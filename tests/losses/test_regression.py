"""Regression losses against loops in plain Python."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hepattn.losses.heteroscedastic import FaithfulLoss, GaussianNLL
from hepattn.losses.regression import RegressionLoss, TargetLoss
from hepattn.nn.regression_head import RegressionHead

LOSSES = {
    "smooth l1": lambda: RegressionLoss("smooth_l1", beta=0.5),
    "l1": lambda: RegressionLoss("l1"),
    "mse": lambda: RegressionLoss("mse"),
    "relative l1": lambda: RegressionLoss("relative_l1", floor=0.2),
    "relative mse": lambda: RegressionLoss("relative_mse", floor=0.2),
    "relative smooth l1": lambda: RegressionLoss("relative_smooth_l1", beta=0.5, floor=0.2),
    "cosine": lambda: RegressionLoss("cosine"),
    "nll": GaussianNLL,
    "beta nll": lambda: GaussianNLL(beta=0.5),
    "faithful": FaithfulLoss,
}


def smooth(x: float) -> float:
    return x * x if abs(x) < 0.5 else abs(x) - 0.25  # beta = 0.5


def cosine(mean: list[float], target: list[float]) -> float:
    product = sum(m * t for m, t in zip(mean, target, strict=True))
    return 1 - product / math.hypot(*mean) / math.hypot(*target)


def expected(name: str, mean: list[float], target: list[float], log_variance: list[float]) -> float:
    """Loss of one event."""
    if name == "cosine":
        return cosine(mean, target)
    terms = []
    for m, t, s in zip(mean, target, log_variance, strict=True):
        scale = max(abs(t), 0.2) if name.startswith("relative") else 1.0
        x = (m - t) / scale
        nll = (s + x * x / math.exp(s)) / 2
        terms.append(
            {
                "smooth l1": smooth(x),
                "l1": abs(x),
                "mse": x * x,
                "nll": nll,
                "beta nll": math.exp(s / 2) * nll,
                "faithful": x * x / 2 + nll,
            }[name.removeprefix("relative ")]
        )
    return sum(terms) / len(terms)


def draw(loss: TargetLoss, num_events: int = 6, num_targets: int = 3) -> tuple[torch.Tensor, ...]:
    output = torch.randn(num_events, loss.num_outputs(num_targets))
    return output, torch.randn(num_events, num_targets), torch.rand(num_events) + 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_each_event_costs_what_the_formula_says(name: str) -> None:
    loss = LOSSES[name]()
    output, target, weight = draw(loss)
    total = 0.0
    for numbers, true, w in zip(output.tolist(), target.tolist(), weight.tolist(), strict=True):
        log_variance = numbers[3:] if loss.has_variance else [0.0] * 3
        total += w * expected(name, numbers[:3], true, log_variance)
    assert float(loss(output, target, weight)) == pytest.approx(
        total / float(weight.sum()), rel=1e-4
    )


@pytest.mark.parametrize("name", LOSSES)
def test_no_weights_are_equal_weights(name: str) -> None:
    loss = LOSSES[name]()
    output, target, weight = draw(loss)
    assert_close(loss(output, target), loss(output, target, torch.full_like(weight, 3.0)))


@pytest.mark.parametrize("name", LOSSES)
def test_events_without_weight_have_no_influence(name: str) -> None:
    loss = LOSSES[name]()
    output, target, weight = draw(loss)
    output[1], target[1], output[2], target[2] = math.nan, 1.0, 1.0, math.inf
    weight[1:3] = 0
    output.requires_grad_()
    answer = loss(output, target, weight)
    answer.backward()
    keep = [0, 3, 4, 5]
    assert_close(answer, loss(output[keep], target[keep], weight[keep]))
    assert (output.grad[1:3] == 0).all()
    assert output.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_weight_costs_nothing(name: str) -> None:
    loss = LOSSES[name]()
    output, target, weight = draw(loss)
    output.requires_grad_()
    answer = loss(output, target, torch.zeros_like(weight))
    answer.backward()
    assert answer == 0
    assert (output.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_computes_in_float32(name: str) -> None:
    loss = LOSSES[name]()
    inputs = draw(loss)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(*inputs)
    assert_close(inside, loss(*inputs), rtol=0, atol=0)
    assert loss(inputs[0].bfloat16(), *inputs[1:]).dtype == torch.float32


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.floats(-50, 50), st.floats(-50, 50), st.sampled_from([0.002, 0.1, 1.0]))
def test_smooth_l1_is_a_square_that_becomes_linear(mean: float, target: float, beta: float) -> None:
    found = RegressionLoss(beta=beta)(torch.tensor([[mean]]), torch.tensor([[target]]))
    x = abs(torch.tensor(mean) - torch.tensor(target)).item()
    expected = x * x / 2 / beta if x < beta else x - beta / 2
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_small_targets_do_not_make_relative_losses_explode() -> None:
    output = torch.tensor([[1.0]], requires_grad=True)
    loss = RegressionLoss("relative_l1", floor=0.5)(output, torch.zeros(1, 1))
    loss.backward()
    assert loss == 2
    assert output.grad == 2


@pytest.mark.parametrize(
    ("loss", "num_outputs", "variance"),
    [
        (RegressionLoss(), 3, "none"),
        (GaussianNLL(), 6, "shared"),
        (FaithfulLoss(), 6, "detached"),
    ],
)
def test_a_head_has_the_outputs_that_its_loss_needs(
    loss: TargetLoss, num_outputs: int, variance: str
) -> None:
    assert loss.num_outputs(3) == num_outputs
    assert loss.variance == variance
    head = RegressionHead(5, 3, variance=loss.variance)
    x = torch.randn(4, 5)
    mean, log_variance = loss.split(head(x))
    assert_close(mean, head.mean(x))
    if loss.has_variance:
        assert (log_variance == 0).all()
    else:
        assert log_variance is None


def test_a_detached_variance_does_not_train_the_features() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    for variance, trains in (("shared", True), ("detached", False)):
        head = RegressionHead(5, 3, variance)
        torch.nn.init.normal_(head.log_variance.weight)
        (grad,) = torch.autograd.grad(head(x)[:, 3:].sum() + 0 * x.sum(), x)
        assert bool((grad != 0).any()) == trains


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegressionLoss("l2"), "kind='l2'"),
        (lambda: RegressionLoss(beta=0.0), "take kind='l1'"),
        (lambda: RegressionLoss("relative_l1", floor=0.0), "floor=0.0"),
        (lambda: RegressionLoss("cosine")(torch.ones(2, 1), torch.ones(2, 1)), "compares vectors"),
        (lambda: GaussianNLL(beta=2.0), "beta=2.0"),
        (lambda: FaithfulLoss(1.0, 1.0), "min_log_variance=1.0 must be below"),
        (lambda: FaithfulLoss()(torch.ones(2, 3), torch.ones(2, 3)), "with 6 numbers for the 3"),
        (lambda: RegressionLoss()(torch.ones(2, 3), torch.ones(2, 1)), "with 1 numbers for the 1"),
        (lambda: RegressionHead(4, 2, "own"), "variance='own'"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_beta_without_effect_warns() -> None:
    with pytest.warns(UserWarning, match=r"beta=0.1 has no effect with kind='l1'"):
        RegressionLoss("l1", beta=0.1)
