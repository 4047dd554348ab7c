import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from hepattn.simulate.events import EventsConfig, make_events

NUM = 10_000


def matrix(events: np.ndarray, name: str, num_classes: int) -> np.ndarray:
    return np.stack([events[f"{name}_{c}"] for c in range(num_classes)], axis=1).astype(float)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_labels_come_with_their_probabilities(num_classes: int) -> None:
    config = EventsConfig(kind="calibration", num_classes=num_classes)
    events = make_events(config, NUM)["events"]
    probability = matrix(events, "probability", num_classes)
    assert_allclose(probability.sum(1), 1.0, atol=1e-6)
    for label in range(num_classes):
        is_class = events["label"] == label
        order = probability[:, label].argsort()
        for part in np.array_split(order, 8):
            p = probability[part, label]
            error = np.sqrt((p * (1 - p)).sum()) / len(part)
            assert abs(is_class[part].mean() - p.mean()) < 4.5 * error


@pytest.mark.parametrize("temperature", [2.0, 0.7])
def test_the_planted_temperature_has_the_largest_likelihood(temperature: float) -> None:
    config = EventsConfig(kind="calibration", temperature=temperature)
    events = make_events(config, NUM)["events"]
    logits = matrix(events, "logit", 3)

    def loss(t: float) -> float:
        return -log_softmax(logits / t, axis=1)[np.arange(NUM), events["label"]].mean()

    found = minimize_scalar(loss, bounds=(0.3, 5.0), method="bounded").x
    assert_allclose(found, temperature, rtol=0.035)


def test_two_classes_are_neither_certain_nor_equal() -> None:
    events = make_events(EventsConfig(kind="calibration", num_classes=2), 4000)["events"]
    spread = np.percentile(events["probability_1"], [5, 95])
    assert spread[0] < 0.15
    assert spread[1] > 0.85
