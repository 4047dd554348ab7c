"""Asimov significance against its formula, and scans against loops."""

import math

import pytest
import torch

from hepattn.metrics.significance import asimov_significance, significance_scan


@pytest.mark.parametrize(("s", "b"), [(5.0, 10.0), (100.0, 3.0), (1.0, 1e4)])
def test_significance_is_the_formula(s: float, b: float) -> None:
    expected = math.sqrt(2 * ((s + b) * math.log(1 + s / b) - s))
    found = asimov_significance(torch.tensor(s), torch.tensor(b))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_small_signal_tends_to_s_over_root_b_without_noise() -> None:
    s = torch.logspace(-8, 3, 500, dtype=torch.float64)
    b = torch.full_like(s, 1e6)
    x = s / b
    found = asimov_significance(s, b)
    assert float(found[0]) == pytest.approx(1e-8 / 1e3, rel=1e-8)
    assert (found.diff() > 0).all()
    assert float((found / (s / b.sqrt() * (1 - x / 6)) - 1).abs().max()) < 1e-6


def test_no_background_and_negative_signal_give_nothing() -> None:
    s, b = torch.tensor([3.0, 3.0, -2.0]), torch.tensor([0.0, -1.0, 5.0])
    assert asimov_significance(s, b).tolist() == [0, 0, 0]


def test_a_scan_counts_what_each_threshold_keeps() -> None:
    score, weight = torch.rand(300).round(decimals=2), torch.rand(300) - 0.1
    is_signal = torch.rand(300) < 0.4
    score[:2] = torch.tensor([0.0, 1.0])
    scan = significance_scan(score, is_signal, weight, num_thresholds=21, num_bins=5)
    for i, cut in enumerate(scan.threshold):
        kept = score.double() >= cut
        for found, which in ((scan.signal, is_signal), (scan.background, ~is_signal)):
            assert float(found[i]) == pytest.approx(float(weight[which & kept].sum()), abs=1e-5)
    value, cut = scan.best()
    assert value == float(scan.significance.max())
    assert cut in scan.threshold.tolist()


def test_a_histogram_adds_its_bins_in_quadrature() -> None:
    score = torch.tensor([0.05, 0.05, 0.95, 0.95, 1.0])
    is_signal = torch.tensor([False, True, False, True, True])
    weight = torch.tensor([100.0, 1.0, 4.0, 3.0, 2.0])
    scan = significance_scan(score, is_signal, weight)
    bins = asimov_significance(torch.tensor([1.0, 5.0]), torch.tensor([100.0, 4.0]))
    assert scan.binned == pytest.approx(float(bins.square().sum().sqrt()))
    assert len(scan.threshold) == 200
