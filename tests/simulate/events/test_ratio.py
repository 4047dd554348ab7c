import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from hepattn.simulate.events import EventsConfig, make_events
from hepattn.simulate.events.closed_form import (
    JET_SCALE,
    NUM_JETS,
    Sums,
    draw_objects,
    num_jets_shares,
    sums_of,
    tag_share,
)
from hepattn.simulate.events.detector import MIN_JET_PT
from hepattn.simulate.events.ratio import known_log_ratio, max_log_ratio

NUM = 10_000


@pytest.fixture(scope="module")
def events() -> np.ndarray:
    return make_events(EventsConfig(kind="ratio"), NUM)["events"]


@pytest.fixture(scope="module")
def parts(events: np.ndarray) -> list[np.ndarray]:
    return [events[events["label"] == label] for label in (0, 1)]


def test_the_ratio_is_normalised() -> None:
    # Adaptive integrals over ht and eta_mean, sums over the numbers.
    total = 0.0
    for num_jets, share in zip(NUM_JETS, num_jets_shares(), strict=True):
        gamma = stats.gamma(num_jets, num_jets * MIN_JET_PT, JET_SCALE)
        normal = stats.norm(0.0, np.sqrt(0.7**2 + 0.9**2 / num_jets))

        def ratio(ht: float, eta: float, tags: int, leptons: int, num: int = num_jets) -> float:
            one = (np.array([value]) for value in (num, ht, eta, tags, leptons))
            return float(np.exp(known_log_ratio(Sums(*one)))[0])

        # The ratio is a product, so each variable is integrated with the others at zero.
        base = ratio(260.0, 0.0, 0, 0)
        ends = gamma.ppf([1e-9, 1 - 1e-9])
        ht, _ = integrate.quad(lambda x, g=gamma, r=ratio: g.pdf(x) * r(x, 0.0, 0, 0), *ends)
        eta, _ = integrate.quad(lambda x, g=normal, r=ratio: g.pdf(x) * r(260.0, x, 0, 0), -9, 9)
        tags = stats.binom(num_jets, tag_share()).pmf(range(num_jets + 1))
        tag = sum(p * ratio(260.0, 0.0, k, 0) for k, p in enumerate(tags))
        single = [0.55, 0.35, 0.10]
        lepton = sum(
            p * q * ratio(260.0, 0.0, 0, i + j)
            for i, p in enumerate(single)
            for j, q in enumerate(single)
        )
        total += share * ht * eta * tag * lepton / base**3
    assert_allclose(total, 1.0, rtol=1e-4)


def test_the_mean_ratio_of_the_denominator_is_one() -> None:
    ratio = np.exp(known_log_ratio(sums_of(draw_objects(NUM, np.random.default_rng(0)))))
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / np.sqrt(NUM)


def test_the_mean_inverse_ratio_of_the_numerator_is_one(parts: list[np.ndarray]) -> None:
    inverse = np.exp(-parts[1]["log_ratio"].astype(float))
    assert abs(inverse.mean() - 1.0) < 4.0 * inverse.std() / np.sqrt(len(inverse))


@pytest.mark.parametrize("column", ["log_ratio", "ht", "m_jj", "met", "num_btags", "m_ll"])
def test_the_weighted_denominator_closes_on_the_numerator(
    parts: list[np.ndarray], column: str
) -> None:
    values = [part[column].astype(float) for part in parts]
    edges = np.unique(np.quantile(np.concatenate(values), np.linspace(0, 1, 16)))
    weight = np.exp(parts[0]["log_ratio"].astype(float))
    weighted, _ = np.histogram(values[0], edges, weights=weight)
    squares, _ = np.histogram(values[0], edges, weights=weight**2)
    counts, _ = np.histogram(values[1], edges)
    chi2 = ((weighted - counts) ** 2 / (squares + counts)).sum()
    assert stats.chi2(len(counts)).sf(chi2) > 1e-3


def test_the_ratio_is_bounded_and_spreads(parts: list[np.ndarray]) -> None:
    low, high = np.percentile(np.concatenate([p["log_ratio"] for p in parts]), [5, 95])
    assert -1.6 < low < -1.1
    assert 1.1 < high < 1.6
    assert max(part["log_ratio"].max() for part in parts) < max_log_ratio()


def test_the_column_follows_from_the_columns_of_a_flat_network(events: np.ndarray) -> None:
    sums = Sums(*(events[name].astype(float) for name in Sums._fields))
    assert_allclose(events["log_ratio"], known_log_ratio(sums), atol=1e-5)


def test_numerator_and_denominator_are_of_one_size(parts: list[np.ndarray]) -> None:
    assert len(parts[0]) == len(parts[1])
