"""Efficiencies carry intervals that cover."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from hepattn.metrics.efficiency import binned_efficiency, efficiency


@pytest.mark.parametrize(("passed", "total"), [(0, 7), (7, 7), (3, 11), (980, 1000)])
def test_interval_is_the_exact_binomial_one(passed: int, total: int) -> None:
    found = efficiency(passed, total)
    expected = binomtest(passed, total).proportion_ci(0.6827, method="exact")
    assert found.value == passed / total
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


def test_interval_covers_at_least_as_often_as_it_says() -> None:
    counts = np.arange(21)
    found = efficiency(counts, np.full(21, 20))
    for truth in (0.03, 0.5, 0.9):
        covered = (found.low <= truth) & (truth <= found.high)
        assert binom.pmf(counts, 20, truth)[covered].sum() >= 0.6827


def test_nothing_out_of_nothing_is_not_a_number() -> None:
    assert np.isnan(np.array(efficiency(0, 0))).all()


def test_more_passed_than_there_were_is_refused() -> None:
    with pytest.raises(ValueError, match=r"passed=3.* total=2"):
        efficiency(3, 2)


def test_bins_hold_their_own_objects_only() -> None:
    found = binned_efficiency([0.1, 0.2, 1.5, 9.0], [True, False, True, False], [0, 1, 2])
    np.testing.assert_allclose(found.value, [0.5, 1.0])
