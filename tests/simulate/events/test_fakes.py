from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.events import EventsConfig, make_events

EDGES = [20.0, 30.0, 40.0, 60.0, np.inf]


@pytest.fixture(scope="module")
def events() -> np.ndarray:
    return make_events(EventsConfig(kind="fakes", negative_share=0.05), 20_000)["events"]


def within(events: np.ndarray, low: float, high: float) -> np.ndarray:
    return events[(events["lepton_pt"] >= low) & (events["lepton_pt"] < high)]


def test_labels_name_the_regions(events: np.ndarray) -> None:
    assert (events["label"] == 2 * events["is_data"] + events["is_tight"]).all()
    assert (np.bincount(events["label"]) > 600).all()


def test_simulation_has_no_fakes_and_data_has_unit_weights(events: np.ndarray) -> None:
    assert not events["is_fake"][events["is_data"] == 0].any()
    assert (events["weight"][events["is_data"] == 1] == 1).all()
    assert (events["weight"][events["is_data"] == 0] < 0).any()


def test_loose_fakes_times_the_fake_factor_give_tight_ones(events: np.ndarray) -> None:
    fakes = events[events["is_fake"] == 1]
    for low, high in pairwise(EDGES):
        part = within(fakes, low, high)
        tight = part["is_tight"] == 1
        factor = np.exp(part["log_fake_factor"][~tight].astype(float))
        error = np.sqrt(tight.sum() + (factor**2).sum())
        assert abs(factor.sum() - tight.sum()) < 4.0 * error


@pytest.mark.parametrize("tight", [0, 1])
def test_weighted_simulation_agrees_with_prompt_data(events: np.ndarray, tight: int) -> None:
    region = events[events["is_tight"] == tight]
    for low, high in pairwise(EDGES):
        part = within(region, low, high)
        prompt = ((part["is_data"] == 1) & (part["is_fake"] == 0)).sum()
        weight = part["weight"][part["is_data"] == 0].astype(float)
        assert abs(weight.sum() - prompt) < 4.0 * np.sqrt(prompt + (weight**2).sum())


@pytest.mark.parametrize("tight", [0, 1])
def test_the_known_ratio_takes_simulation_to_data(events: np.ndarray, tight: int) -> None:
    region = events[events["is_tight"] == tight]
    for low, high in pairwise(EDGES):
        part = within(region, low, high)
        data = (part["is_data"] == 1).sum()
        mc = part[part["is_data"] == 0]
        weight = mc["weight"].astype(float) * np.exp(mc["log_ratio"].astype(float))
        assert abs(weight.sum() - data) < 4.0 * np.sqrt(data + (weight**2).sum())


def test_subtracted_data_give_the_fakes(events: np.ndarray) -> None:
    data = events[events["is_data"] == 1]
    subtraction = 1.0 - np.exp(-data["log_ratio"].astype(float))
    error = np.sqrt((subtraction * (1 - subtraction)).sum())
    assert abs(subtraction.sum() - data["is_fake"].sum()) < 4.0 * error


def test_the_size_of_the_simulation_follows_the_config() -> None:
    config = EventsConfig(kind="fakes", mc_per_data=4.0)
    events = make_events(config, 10_000)["events"]
    is_data = events["is_data"] == 1
    prompt = is_data & (events["is_fake"] == 0)
    assert_allclose((~is_data).sum() / prompt.sum(), 4.0, rtol=0.1)
    assert_allclose(events["weight"][~is_data].mean(), 0.25, rtol=0.03)
