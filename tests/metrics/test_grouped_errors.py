"""Errors of methods in groups."""

import pytest
import torch
from torch.testing import assert_close

from hepattn.metrics.grouped_errors import GroupedErrors


def test_errors_add_up_by_method_and_group() -> None:
    metric = GroupedErrors(("ours", "theirs"), num_groups=3)
    group = torch.tensor([0, 2, 2, 0, 2])
    error = torch.tensor([1.0, -2.0, 4.0, 3.0, 1.0])
    metric.update({"ours": error[:3]}, group[:3])
    metric.update({"ours": error[3:], "theirs": error[3:] * 2}, group[3:])
    expected = torch.tensor([[5.0, 0.0, 7.0], [36.0, 0.0, 4.0]], dtype=torch.float64).sqrt()
    assert_close(metric.root_mean_square(), expected)
    summary = metric.summary()
    assert summary["ours"]["num"] == 5
    assert summary["ours"]["rms"] == pytest.approx((31 / 5) ** 0.5)
    assert summary["ours"]["bias"] == pytest.approx(7 / 5)
    assert summary["theirs"]["bias"] == pytest.approx(4)


def test_methods_without_errors_are_left_out() -> None:
    assert GroupedErrors(("ours",), 2).summary() == {}
