from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hepattn.physics import xec
from hepattn.simulate.xec import XecConfig, make_event, make_events
from hepattn.simulate.xec.channels import make_channels

IS_PMT = xec.sensors().is_pmt
SIGNAL = XecConfig(min_energy=0.0528, max_energy=0.0528, dead_share=0.0, num_dead_clusters=0)


@pytest.fixture(scope="module")
def events() -> dict[str, np.ndarray]:
    return make_events(XecConfig(), 40)


@pytest.fixture(scope="module")
def signal() -> dict[str, np.ndarray]:
    return make_events(SIGNAL, 200)


def photoelectrons(npho: np.ndarray) -> np.ndarray:
    return npho * np.where(IS_PMT, 0.16, 0.15)


def test_light_of_signal_photons_is_as_measured(signal: dict[str, np.ndarray]) -> None:
    npho = signal["npho"]
    total = photoelectrons(npho).sum(1)
    low, high = np.quantile(total, [0.05, 0.9])
    assert low == pytest.approx(1.0e5, rel=0.06)
    assert high == pytest.approx(1.26e5, rel=0.06)
    assert np.median((npho > 0).sum(1)) == pytest.approx(4000, rel=0.04)
    bright = np.quantile((npho > 100).sum(1), [0.2, 0.8])
    assert_allclose(bright, (1000, 1300), rtol=0.08)


def test_the_brightest_channel_is_the_brighter_the_shallower_the_shower() -> None:
    # The prototype had 5e4 photons at a depth of 0.5 cm, falling to 6e3.
    signal = make_events(SIGNAL, 400)
    depth, brightest = signal["uvwTruth"][:, 2], signal["npho"].max(1)
    assert np.quantile(brightest[depth < 0.7], 0.7) == pytest.approx(5e4, rel=0.3)
    assert np.median(brightest[depth > 6]) == pytest.approx(6e3, rel=0.2)


def test_arrival_times_are_in_the_measured_range(signal: dict[str, np.ndarray]) -> None:
    time = signal["relative_time"] + signal["time_min_used"][:, None]
    arrival = 1e9 * time - signal["timeTruth"][:, None]
    bright = photoelectrons(signal["npho"]) > 50
    low, high = np.quantile(arrival[bright], [0.002, 0.9998])
    assert low == pytest.approx(1.6, abs=0.4)
    assert high == pytest.approx(9.4, abs=1.2)


def test_times_count_from_the_earliest_bright_channel(events: dict[str, np.ndarray]) -> None:
    valid = events["relative_time"] < 1e9
    bright = valid & (photoelectrons(np.where(valid, events["npho"], 0)) > 50)
    assert (np.where(bright, events["relative_time"], np.inf).min(1) == 0).all()
    assert events["relative_time"].min() < 0  # a dim channel may be early
    flight = np.linalg.norm(events["xyzTruth"] - events["xyzVTX"], axis=1) / 29.9792458
    seen = 1e9 * events["time_min_used"] - events["timeTruth"] - flight  # in xenon
    assert (np.abs(seen) < 2).all()  # the noise of 50 photoelectrons is 0.7 ns


def test_dim_channels_have_no_time_and_dead_ones_nothing(events: dict[str, np.ndarray]) -> None:
    dead = make_channels(XecConfig(), 0).dead
    for name in ("npho", "relative_time"):
        assert (events[name][:, dead] == np.float32(1e10)).all()
    npho, time = events["npho"][:, ~dead], events["relative_time"][:, ~dead]
    assert npho.max() < 1e6
    assert_array_equal(time == np.float32(1e10), npho < 10)


def test_truth_is_consistent(events: dict[str, np.ndarray]) -> None:
    assert_allclose(xec.uvw_to_xyz(events["uvwTruth"]), events["xyzTruth"], atol=1e-4)
    flight = events["xyzTruth"] - events["xyzVTX"]
    unit = flight / np.linalg.norm(flight, axis=1, keepdims=True)
    assert_allclose(events["emiVec"], unit, atol=1e-5)
    theta, phi = np.deg2rad(events["emiAng"]).T
    assert_allclose(xec.angles_to_vector(theta, phi), unit, atol=1e-5)
    alive = np.where(events["npho"] < 9e9, events["npho"], -1)
    assert_array_equal(events["ch_npho_max"], alive.argmax(1))
    assert_array_equal(events["event"], np.arange(40))


def test_light_follows_the_energy_and_the_position(events: dict[str, np.ndarray]) -> None:
    npho = np.where(events["npho"] < 9e9, events["npho"], 0)
    assert np.corrcoef(npho.sum(1), events["energyTruth"])[0, 1] > 0.9
    inner = npho[:, :4092]
    middle = inner @ xec.sensors().position[:4092, 2] / inner.sum(1)
    assert np.corrcoef(middle, events["uvwTruth"][:, 0])[0, 1] > 0.95


def test_an_event_depends_on_its_number_only() -> None:
    config = XecConfig(run_size=2)
    some = make_events(config, 3, first=4)
    for i in range(3):
        for name, value in make_event(config, 4 + i).items():
            assert_array_equal(some[name][i], value)
    assert some["run"].tolist() == [2, 2, 3]
    other = make_event(replace(config, seed=1), 4)
    assert other["energyTruth"] != some["energyTruth"][0]


def test_faint_events_take_the_time_of_the_brightest_channel() -> None:
    faint = make_event(replace(SIGNAL, min_energy=5e-6, max_energy=5e-6, time_threshold=0.0), 0)
    brightest = faint["ch_npho_max"]
    assert photoelectrons(faint["npho"]).max() < 50
    assert faint["relative_time"][brightest] == 0
    dark = make_event(replace(SIGNAL, min_energy=1e-12, max_energy=1e-12), 0)
    assert (dark["npho"] == 0).all()
    assert (dark["relative_time"] == np.float32(1e10)).all()
    assert np.isfinite(dark["time_min_used"])
