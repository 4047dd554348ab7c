"""Fits of planted scalings, and what they may never do."""

import pytest
import torch
from torch import Tensor

from hepattn.deploy.calibration import (
    CalibrationOptions,
    Scored,
    fit_scaling,
    join,
    mean_loss,
)
from hepattn.metrics.calibration import reliability
from hepattn.nn.scaling import class_logits
from hepattn.training.configs import ConfigError


def draw(num_outputs: int, num: int = 40_000) -> Scored:
    """Logits that are right: labels are drawn from their probabilities."""
    logit = 1.5 * torch.randn(num, num_outputs, dtype=torch.float64)
    label = class_logits(logit).softmax(-1).multinomial(1).squeeze(1)
    return Scored(logit, label, torch.ones(num, dtype=torch.float64))


def error(scored: Scored) -> float:
    probability = class_logits(scored.logit).softmax(-1)
    return reliability(probability, scored.label, scored.weight).error()


def distort(scored: Scored, weight: Tensor, bias: Tensor) -> Scored:
    """Undo ``W z + b``, so that a calibration has to find it."""
    return scored._replace(logit=(scored.logit - bias) @ torch.linalg.inv(weight).T)


@pytest.mark.parametrize("optimizer", ["lbfgs_line_search", "lbfgs"])
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_planted_temperature_is_found(num_outputs: int, optimizer: str) -> None:
    right = draw(num_outputs)
    wrong = right._replace(logit=2 * right.logit)
    fitted = fit_scaling([wrong], CalibrationOptions(optimizer=optimizer))
    assert float(1 / fitted.weight[0, 0]) == pytest.approx(2, abs=0.05)
    assert fitted.converged
    after = wrong._replace(logit=fitted.apply(wrong.logit))
    assert error(after) < error(wrong) / 5
    assert mean_loss(after) < mean_loss(wrong)


def test_batches_of_their_own_give_the_mean_of_their_fits() -> None:
    right = draw(1, 20_000)
    wrong = right._replace(logit=2 * right.logit)
    parts = [Scored(*part) for part in zip(*(x.split(7_000) for x in wrong), strict=True)]
    fitted = fit_scaling(parts, CalibrationOptions(fit_all=False))
    alone = [fit_scaling([part], CalibrationOptions()).weight.log() for part in parts]
    expected = (7 * alone[0] + 7 * alone[1] + 6 * alone[2]) / 20
    assert float(fitted.weight) == pytest.approx(float(expected.exp()), rel=1e-9)
    assert len(fitted.steps) == 3


def test_platt_scaling_finds_factor_and_offset() -> None:
    right = draw(1)
    wrong = distort(right, torch.tensor([[0.4]]).double(), torch.tensor([-0.8]))
    fitted = fit_scaling([wrong], CalibrationOptions(method="vector"))
    assert float(fitted.weight) == pytest.approx(0.4, abs=0.02)
    assert float(fitted.bias) == pytest.approx(-0.8, abs=0.05)


@pytest.mark.parametrize("method", ["vector", "matrix"])
def test_an_affine_map_is_found_up_to_what_the_softmax_ignores(method: str) -> None:
    weight = torch.tensor([0.5, 1.2, 0.8]).double().diag()
    if method == "matrix":
        weight = weight + torch.tensor([[0, 0.2, 0], [-0.3, 0, 0], [0, 0.1, 0]]).double()
    bias = torch.tensor([0.5, -0.5, 0.2]).double()
    wrong = distort(draw(3, 60_000), weight, bias)
    fitted = fit_scaling([wrong], CalibrationOptions(method=method))
    assert fitted.converged
    for found, expected in ((fitted.weight, weight), (fitted.bias, bias)):
        difference = found - expected
        assert float((difference - difference.mean(0)).abs().max()) < 0.06


@pytest.mark.parametrize("method", ["temperature", "vector", "matrix"])
def test_the_loss_never_rises_on_what_was_fitted(method: str) -> None:
    right = draw(3, 2_000)
    signed = right._replace(weight=torch.randn(2_000).double() + 1.5)
    for options in (CalibrationOptions(method=method), CalibrationOptions(method, max_iter=1)):
        for scored in (right, signed):
            fitted = fit_scaling([scored], options)
            after = scored._replace(logit=fitted.apply(scored.logit))
            assert mean_loss(after) <= mean_loss(scored) + 1e-9


def test_weights_decide_which_events_matter() -> None:
    right = draw(1)
    half = torch.arange(len(right.label)) < 20_000
    mixed = right._replace(
        logit=torch.where(half[:, None], 2.0, 0.5) * right.logit, weight=half.double()
    )
    assert float(1 / fit_scaling([mixed], CalibrationOptions()).weight) == pytest.approx(2, 0.05)


def test_a_given_temperature_is_not_fitted() -> None:
    fitted = fit_scaling([draw(2, 10)], CalibrationOptions(set_temperature=4.0))
    assert fitted.weight.tolist() == [[0.25, 0], [0, 0.25]]
    assert fitted.bias.tolist() == [0, 0]


def test_a_fit_that_was_stopped_says_so() -> None:
    wrong = draw(1)._replace(logit=20 * draw(1).logit)
    assert not fit_scaling([wrong], CalibrationOptions(max_iter=1)).converged


def test_a_fit_that_makes_it_worse_is_refused() -> None:
    right = draw(3, 2_000)
    with pytest.raises(ConfigError, match="would raise the loss"):
        fit_scaling([right], CalibrationOptions(optimizer="lbfgs", lr=500.0, max_iter=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "platt"}, "method='platt' must be one of"),
        ({"lr": 0.0}, "lr=0.0 must be positive"),
        ({"method": "vector", "set_temperature": 2.0}, "only method=temperature"),
        ({"set_temperature": -1.0}, "must be positive"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CalibrationOptions(**options)


def test_events_must_allow_the_fit() -> None:
    right = draw(1, 10)
    with pytest.raises(ConfigError, match="take vector"):
        fit_scaling([right], CalibrationOptions(method="matrix"))
    with pytest.raises(ConfigError, match="no labelled events"):
        fit_scaling([], CalibrationOptions())
    with pytest.raises(ConfigError, match="sum to nothing"):
        fit_scaling([join([right, right._replace(weight=-right.weight)])], CalibrationOptions())
