import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from hepattn.simulate.events.closed_form import (
    BOOST_WIDTH,
    JET_ETA_WIDTH,
    JET_SCALE,
    NUM_JETS,
    Sums,
    draw_objects,
    eta_mean_quantiles,
    finish,
    ht_quantiles,
    num_jets_shares,
    sums_of,
    tag_share,
)
from hepattn.simulate.events.detector import MIN_JET_PT

NUM = 20_000


@pytest.fixture(scope="module")
def objects() -> dict[str, np.ndarray]:
    return draw_objects(NUM, np.random.default_rng(0))


@pytest.fixture(scope="module")
def sums(objects: dict[str, np.ndarray]) -> Sums:
    return sums_of(objects)


def test_numbers_of_jets_follow_their_shares(sums: Sums) -> None:
    found = np.bincount(sums.num_jets, minlength=NUM_JETS[-1] + 1)
    poisson = stats.poisson(1.8).pmf(NUM_JETS - 2)
    assert_allclose(num_jets_shares(), poisson / poisson.sum())
    assert found[:2].sum() == 0
    assert_allclose(found[2:] / NUM, num_jets_shares(), atol=0.012)


@pytest.mark.parametrize("num_jets", [2, 4])
def test_sums_follow_their_densities(sums: Sums, num_jets: int) -> None:
    same = sums.num_jets == num_jets
    gamma = stats.gamma(num_jets, num_jets * MIN_JET_PT, JET_SCALE)
    normal = stats.norm(0.0, np.sqrt(BOOST_WIDTH**2 + JET_ETA_WIDTH**2 / num_jets))
    assert stats.kstest(sums.ht[same], gamma.cdf).pvalue > 0.01
    assert stats.kstest(sums.eta_mean[same], normal.cdf).pvalue > 0.01
    binomial = stats.binom(num_jets, tag_share()).pmf(np.arange(num_jets + 1))
    found = np.bincount(sums.num_btags[same], minlength=num_jets + 1) / same.sum()
    assert_allclose(found, binomial, atol=0.02)


def test_sums_are_independent_for_a_number_of_jets(sums: Sums) -> None:
    same = sums.num_jets == 3
    rows = np.stack([column[same] for column in sums[1:]])
    correlation = np.corrcoef(rows) - np.eye(4)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(same.sum())


def test_quantiles_invert_the_distributions() -> None:
    probability = np.array([0.01, 0.3, 0.9])
    gamma = stats.gamma(5, 5 * MIN_JET_PT, JET_SCALE)
    assert_allclose(gamma.cdf(ht_quantiles(probability, 5)), probability)
    normal = stats.norm(0.0, np.sqrt(BOOST_WIDTH**2 + JET_ETA_WIDTH**2 / 5))
    assert_allclose(normal.cdf(eta_mean_quantiles(probability, 5)), probability)


def test_jets_balance_each_other(objects: dict[str, np.ndarray]) -> None:
    columns = finish(objects, np.random.default_rng(1))
    without = columns["num_leptons"] == 0
    assert np.median((columns["met"] / columns["ht"])[without]) < 0.25


def test_one_lepton_is_one_of_either_flavour() -> None:
    objects = draw_objects(2000, np.random.default_rng(0), one_lepton=True)
    counts = np.stack([objects[kind]["valid"].sum(1) for kind in ("electrons", "muons")])
    assert (counts.sum(0) == 1).all()
    assert_allclose(counts.mean(1), 0.5, atol=0.04)
