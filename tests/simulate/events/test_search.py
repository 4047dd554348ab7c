import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.events import PROCESSES, EventsConfig, make_events
from hepattn.simulate.events.processes import GENERATORS, MASS


@pytest.fixture(scope="module")
def events() -> np.ndarray:
    return make_events(EventsConfig(), 7000)["events"]


def of(events: np.ndarray, name: str) -> np.ndarray:
    return events[events["label"] == PROCESSES.index(name)]


@pytest.mark.parametrize(
    ("name", "column", "mass", "tolerance"),
    [
        ("zjets", "m_ll", MASS["Z"], 0.02),
        ("zprime_to_ll", "m_ll", MASS["Z'"], 0.02),
        ("x_to_bb", "m_jj", MASS["X"], 0.05),
    ],
)
def test_measured_masses_peak_at_the_resonance(
    events: np.ndarray, name: str, column: str, mass: float, tolerance: float
) -> None:
    found = of(events, name)[column]
    assert_allclose(np.median(found[found > 0.6 * mass]), mass, rtol=tolerance)


def test_the_mass_of_the_background_falls_through_the_signal(events: np.ndarray) -> None:
    mass = of(events, "qcd")["m_jj"]
    counts, _ = np.histogram(mass, [250, 400, 550, 700])
    assert counts[0] > 1.8 * counts[1] > 1.8 * 1.3 * counts[2] > 0


def test_neutrinos_leave_missing_momentum(events: np.ndarray) -> None:
    assert np.median(of(events, "wjets")["met"]) > 1.5 * np.median(of(events, "qcd")["met"])


def test_events_pass_the_selection(events: np.ndarray) -> None:
    assert ((events["num_jets"] >= 2) | (events["num_leptons"] >= 1)).all()


def test_weights_are_the_expected_yields_with_mean_one() -> None:
    events = make_events(EventsConfig(negative_share=0.1), 7000)["events"]
    assert (events["weight"] < 0).any()
    total = sum(process.expected for process in GENERATORS.values())
    for name, process in GENERATORS.items():
        share = of(events, name)["weight"].sum() / len(events)
        assert_allclose(share, process.expected / total, rtol=0.15)


def test_a_cut_that_needs_the_mass_sculpts_and_tags_do_not(events: np.ndarray) -> None:
    qcd = of(events, "qcd")
    hard = qcd["m_jj"][qcd["ht"] > 400.0]
    tagged = qcd["m_jj"][qcd["num_btags"] > 0]
    assert np.median(hard) > 1.5 * np.median(qcd["m_jj"])
    assert_allclose(np.median(tagged), np.median(qcd["m_jj"]), rtol=0.25)
