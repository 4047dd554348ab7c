"""Widths of residuals."""

import math

import numpy as np
import pytest
import torch

from hepattn.metrics.resolution import (
    Residuals,
    bootstrap,
    effective_width,
    residual_figures,
    resolution,
)


def naive_effective_width(residual: np.ndarray) -> float:
    """Try every interval between two residuals."""
    inside = math.ceil(0.6827 * len(residual))
    widths = [
        high - low
        for low in residual
        for high in residual
        if ((residual >= low) & (residual <= high)).sum() >= inside
    ]
    return min(widths) / 2


@pytest.mark.parametrize("number", [1, 2, 3, 10, 41])
def test_effective_width_is_that_of_the_smallest_interval(number: int) -> None:
    residual = np.random.default_rng(number).standard_cauchy(number)
    assert effective_width(residual) == pytest.approx(naive_effective_width(residual))


def test_normal_residuals_have_their_standard_deviation() -> None:
    residual = np.random.default_rng(0).normal(0.0, 3.0, 100_000)
    assert resolution(residual) == pytest.approx(3.0, rel=0.01)
    assert effective_width(residual) == pytest.approx(3.0, rel=0.02)


def test_a_bias_widens_the_resolution_and_not_the_effective_width() -> None:
    residual = np.random.default_rng(0).normal(5.0, 1.0, 20_000)
    assert effective_width(residual) == pytest.approx(1.0, rel=0.03)
    assert resolution(residual) == pytest.approx(5.5, rel=0.02)


def test_bootstrap_finds_the_error_of_a_mean() -> None:
    residual = np.random.default_rng(1).normal(0.0, 2.0, 400)
    measured = bootstrap(lambda values: float(values.mean()), residual, num_draws=500)
    assert measured.value == pytest.approx(residual.mean())
    assert measured.error == pytest.approx(2.0 / 20, rel=0.15)


def test_figures_of_a_known_sample() -> None:
    residual = np.array([-1.0, 0.0, 1.0, 4.0])
    figures = residual_figures(residual, np.array([1.0, 1.0, 2.0, 2.0]))
    assert figures.num == 4
    assert figures.bias.value == 1
    assert figures.rms == pytest.approx(residual.std())
    assert figures.skew == pytest.approx(((residual - 1) ** 3).mean() / residual.std() ** 3)
    assert figures.coverage == 0.75
    assert figures.calibration == pytest.approx(1.5 / np.sqrt(18 / 4))


def test_right_spreads_have_unit_pulls_and_cover_two_thirds() -> None:
    rng = np.random.default_rng(2)
    spread = rng.uniform(0.5, 4.0, 50_000)
    figures = residual_figures(rng.normal(0.0, spread), spread)
    assert figures.pull_width == pytest.approx(1.0, rel=0.03)
    assert figures.coverage == pytest.approx(0.6827, abs=0.01)
    assert math.isnan(residual_figures(rng.normal(size=9)).pull_width)


def test_residuals_add_up_over_batches() -> None:
    estimate, truth = torch.randn(10), torch.randn(10) + 3
    whole, parts = Residuals(), Residuals()
    spread = torch.rand(10) + 0.5
    whole.update(estimate, truth, spread)
    for part in (slice(0, 4), slice(4, 10)):
        parts.update(estimate[part], truth[part], spread[part])
    assert parts.figures() == whole.figures()
    assert whole.compute() == pytest.approx(
        float((estimate - truth).abs().double().quantile(0.6827)), rel=1e-6
    )


def test_estimates_that_are_not_finite_stop() -> None:
    with pytest.raises(FloatingPointError, match="its training diverged"):
        Residuals().update(torch.tensor([torch.nan]), torch.zeros(1))
