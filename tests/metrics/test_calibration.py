"""Reliability and expected calibration error."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hepattn.metrics.calibration import reliability


def loop_error(claimed: np.ndarray, right: np.ndarray, weight: np.ndarray, num_bins: int) -> float:
    total = 0.0
    for i in range(num_bins):
        inside = (claimed >= i / num_bins) & ((claimed < (i + 1) / num_bins) | (i == num_bins - 1))
        total += abs((weight[inside] * (right[inside] - claimed[inside])).sum())
    return total / weight.sum()


def draw(num_classes: int, num: int = 500) -> tuple[Tensor, Tensor, Tensor]:
    probability = torch.randn(num, num_classes).softmax(-1).double()
    label = torch.randint(num_classes, (num,))
    return probability, label, torch.rand(num, dtype=torch.float64) - 0.1


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_error_is_the_mean_gap_of_the_bins(num_classes: int) -> None:
    probability, label, weight = draw(num_classes)
    if num_classes == 2:
        claimed, right = probability[:, 1], label == 1
    else:
        claimed, right = probability.max(1).values, probability.argmax(1) == label
    expected = loop_error(*(x.double().numpy() for x in (claimed, right, weight)), 15)
    assert reliability(probability, label, weight).error() == pytest.approx(expected, rel=1e-9)


def test_probabilities_that_are_right_have_a_small_error() -> None:
    p = torch.rand(40_000, dtype=torch.float64)
    label = (torch.rand(40_000) < p).long()
    bins = reliability(torch.stack([1 - p, p], 1), label, torch.ones(40_000))
    assert bins.error() < 0.01
    assert bins.weight.sum() == 40_000
    assert (bins.predicted - bins.observed).abs().max() < 0.04


def test_certain_probabilities_fall_into_the_last_bin() -> None:
    bins = reliability(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), torch.ones(1))
    assert bins.weight[-1] == 1
    assert bins.error() == 0
    assert math.isnan(bins.predicted[0])


def test_no_events_have_no_error() -> None:
    empty = torch.zeros(0)
    assert math.isnan(reliability(empty.view(0, 2), empty.long(), empty).error())
