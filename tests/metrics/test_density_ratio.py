"""Figures of density ratios on samples whose ratio is known."""

import math

import pytest
import torch
from torch import Tensor

from hepattn.metrics.density_ratio import DensityRatioMetrics, closure, ratio_error


def gaussians(num: int, shift: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Values of two unit Gaussians, which are numerator, and the log of the ratio."""
    is_numerator = torch.arange(2 * num) < num
    x = torch.randn(2 * num, dtype=torch.float64) + shift * is_numerator
    return x, is_numerator, shift * x - shift**2 / 2


def test_the_error_is_the_median_between_the_quantiles() -> None:
    truth = torch.linspace(-2, 2, 1001)
    off = truth + math.log(1.1)
    off[:50] += 5  # below the 5th percentile
    off[-50:] -= 5
    assert ratio_error(off, truth) == pytest.approx(0.1, rel=1e-5)
    assert ratio_error(truth, truth) == 0
    assert math.isnan(ratio_error(truth[:0], truth[:0]))


def test_the_true_ratio_closes_and_a_wrong_one_does_not() -> None:
    chi2 = []
    for _ in range(10):
        x, is_numerator, log_ratio = gaussians(20_000)
        weight = torch.where(is_numerator, 1.0, log_ratio.exp())
        found = closure(x, is_numerator, weight)
        assert found.ndf == 30
        chi2.append(found.chi2_per_ndf())
    assert sum(chi2) / 10 == pytest.approx(1, abs=0.25)  # 3 sigma: 0.245
    wrong = torch.where(is_numerator, 1.0, (0.7 * log_ratio).exp())
    assert closure(x, is_numerator, wrong).chi2_per_ndf() > 3


def test_chi2_is_the_sum_over_bins_of_a_loop() -> None:
    x, is_numerator, log_ratio = gaussians(300)
    weight = torch.rand(600, dtype=torch.float64) * log_ratio.exp()
    found = closure(x, is_numerator, weight, num_bins=7)
    expected = 0.0
    for i in range(7):
        inside = (x >= found.edges[i]) & ((x < found.edges[i + 1]) | (i == 6))
        up, down = weight[inside & is_numerator], weight[inside & ~is_numerator]
        expected += float((up.sum() - down.sum()) ** 2 / (up.square().sum() + down.square().sum()))
    assert found.chi2 == pytest.approx(expected)
    assert float(found.numerator.sum()) == pytest.approx(float(weight[is_numerator].sum()))


def test_shapes_alone_lose_a_degree_of_freedom_and_the_scale() -> None:
    x, is_numerator, log_ratio = gaussians(5_000)
    weight = torch.where(is_numerator, 1.0, 3 * log_ratio.exp())
    found = closure(x, is_numerator, weight, normalise=True)
    assert found.ndf == 29
    assert found.chi2_per_ndf() < 2
    assert float(found.denominator.sum()) == pytest.approx(float(found.numerator.sum()))


def test_each_of_few_values_has_a_bin_of_its_own() -> None:
    x = torch.tensor([0.0, 1.0, 2.0]).repeat(40)
    is_numerator = torch.arange(120) % 2 == 0
    found = closure(x, is_numerator, torch.ones(120))
    assert found.ndf == 3
    assert found.numerator.tolist() == [20, 20, 20]


def test_metrics_of_batches_are_those_of_all_events() -> None:
    x, is_numerator, log_ratio = gaussians(2_000)
    label, guess = is_numerator.long(), log_ratio + 0.02
    label[:10] = -1
    metrics = DensityRatioMetrics(num_variables=1)
    columns = (guess, label, torch.ones_like(x), x[:, None], log_ratio)
    for part in zip(*(column.chunk(3) for column in columns), strict=True):
        metrics.update(*part)
    assert metrics.compute() == pytest.approx(math.expm1(0.02))
    known = label >= 0
    weight = torch.where(is_numerator, 1.0, guess.exp())[known]
    assert metrics.closure(0).chi2 == pytest.approx(
        closure(x[known], is_numerator[known], weight).chi2
    )
    ratio = log_ratio[~is_numerator].exp()
    share = ratio.sum() ** 2 / ratio.square().sum() / len(ratio)
    assert metrics.effective_share() == pytest.approx(float(share))


@pytest.mark.parametrize("shift", [-400.0, 400.0])
def test_the_effective_share_knows_no_scale(shift: float) -> None:
    metrics = DensityRatioMetrics(num_variables=0)
    metrics.update(
        torch.tensor([shift, shift + math.log(2)]), torch.zeros(2), torch.ones(2), torch.zeros(2, 0)
    )
    assert metrics.effective_share() == pytest.approx(0.9, rel=1e-4)


def test_an_unknown_truth_gives_no_error() -> None:
    metrics = DensityRatioMetrics(num_variables=0)
    assert math.isnan(metrics.error())
    assert math.isnan(metrics.effective_share())
    metrics.update(torch.zeros(4), torch.ones(4), torch.ones(4), torch.zeros(4, 0))
    assert math.isnan(metrics.compute())


def test_ratios_that_are_not_finite_stop() -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        DensityRatioMetrics(0).update(
            torch.tensor([math.inf]), torch.ones(1), torch.ones(1), torch.zeros(1, 0)
        )


def test_uncertainties_hold_as_often_as_the_truth_is_within_them() -> None:
    metrics = DensityRatioMetrics(0)
    truth = torch.tensor([0.0, 0.1, -0.3, math.nan])
    spread = torch.tensor([0.05, 0.2, 0.5, 0.3])
    nothing = torch.zeros(4, 0)
    metrics.update(torch.zeros(4), torch.ones(4), torch.ones(4), nothing, truth, spread)
    assert metrics.uncertainty() == pytest.approx((0.2, 1.0))
    metrics.update(
        torch.zeros(1), torch.ones(1), torch.ones(1), nothing[:1], truth[2:3], spread[:1]
    )
    assert metrics.uncertainty() == pytest.approx((0.2, 0.75))  # 1 - exp(-0.3) = 0.26
    plain = DensityRatioMetrics(0)
    plain.update(torch.zeros(4), torch.ones(4), torch.ones(4), nothing)
    assert plain.uncertainty() is None


def test_moments_are_those_of_all_log_ratios() -> None:
    metrics, x = DensityRatioMetrics(0), torch.randn(50, dtype=torch.float64)
    for part in x.split(20):
        ones = torch.ones(len(part))
        metrics.update(part, ones, ones, torch.zeros(len(part), 0))
    expected = (x.mean(), x.std(correction=0), x.min(), x.max())
    assert list(metrics.moments().values()) == pytest.approx([float(value) for value in expected])
    assert math.isnan(DensityRatioMetrics(0).moments()["mean"])
