import math
from pathlib import Path

import numpy as np
import pytest

from hepattn.data import DataError
from hepattn.data.trackml import FEATURE_NAMES, Event, hit_features, open_events
from hepattn.nn.normalise import Feature


def column(event: Event, name: str) -> np.ndarray:
    return hit_features(event, [Feature(name)])[:, 0]


def hits_at(*points: tuple[float, float, float]) -> Event:
    hits = dict(zip("xyz", np.array(points, dtype=np.float32).T, strict=True))
    return Event("event000000001", {"hit_id": np.arange(len(points)) + 5} | hits)


def test_positions_in_other_coordinates(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    for i in range(event.num_hits):
        x, y, z = (float(event.hits[name][i]) for name in "xyz")
        r = math.sqrt(x * x + y * y)
        theta = math.acos(z / math.sqrt(r * r + z * z))
        expected = {
            **{"x": x, "y": y, "z": z, "r": r, "phi": math.atan2(y, x), "theta": theta},
            **{"eta": -math.log(math.tan(theta / 2)), "s": math.sqrt(r * r + z * z)},
            **{"u": x / r**2, "v": y / r**2},
        }
        found = hit_features(event, [Feature(name) for name in expected])[i]
        np.testing.assert_allclose(found, list(expected.values()), rtol=3e-6)


def test_columns_come_in_the_order_of_the_list(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    found = hit_features(event, [Feature("module_id"), Feature("z"), Feature("volume_id")])
    assert found.dtype == np.float32
    assert found.shape == (event.num_hits, 3)
    for index, name in enumerate(("module_id", "z", "volume_id")):
        np.testing.assert_array_equal(found[:, index], event.hits[name].astype(np.float32))


def test_every_known_feature_is_there_for_a_complete_event(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    found = hit_features(event, [Feature(name) for name in FEATURE_NAMES])
    assert np.isfinite(found).all()


def test_eta_keeps_its_accuracy_far_forward() -> None:
    assert column(hits_at((0.01, 0.0, 3000.0)), "eta")[0] == pytest.approx(
        math.asinh(3000 / np.float32(0.01)), rel=1e-7
    )


def test_an_unknown_feature_names_a_close_one(raw_events: Path) -> None:
    with pytest.raises(DataError, match=r"'charge_fraction'.*, x, y, z; .*'charge_frac'\?"):
        column(open_events(raw_events).read(0), "charge_fraction")


def test_a_missing_column_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"event000000001: feature lx: .*extent_u.*`missing`"):
        column(hits_at((1, 2, 3)), "lx")


def test_a_missing_column_takes_the_value_of_the_feature() -> None:
    found = hit_features(hits_at((1, 2, 3), (4, 5, 6)), [Feature("x"), Feature("lx", missing=0.25)])
    np.testing.assert_array_equal(found, [[1, 0.25], [4, 0.25]])


@pytest.mark.parametrize(("name", "value"), [("u", "nan"), ("eta", "inf")])
def test_a_value_that_is_not_finite_names_feature_and_hit(name: str, value: str) -> None:
    with pytest.raises(
        DataError, match=rf"event000000001: feature {name}: found {value} at hit_id 6"
    ):
        column(hits_at((1, 2, 3), (0, 0, 5)), name)
