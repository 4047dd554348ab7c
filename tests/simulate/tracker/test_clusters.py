import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.tracker import clusters
from hepattn.simulate.tracker.clusters import cluster_positions, digitise
from hepattn.simulate.tracker.geometry import geometry

MODULES = geometry().modules
DISC_PIXEL = int(np.flatnonzero(MODULES.volume == 9)[0])  # 0.3 mm deep, 0.05 x 0.05625 mm cells
STRIP = int(np.flatnonzero(MODULES.volume == 17)[0])


def tracks(num: int, tan_u: float, tan_v: float, module: int = DISC_PIXEL) -> tuple:
    """Tracks of one direction through random points in the middle of a module."""
    local = np.random.default_rng(0).uniform(-5, 5, (num, 2))
    heading = np.array([tan_u, tan_v, 1.0]) / np.sqrt(1 + tan_u**2 + tan_v**2)
    return np.full(num, module), local, np.tile(heading, (num, 1))


def cells_of(num: int, tan_u: float, tan_v: float, threshold: float = 0.0) -> clusters.Cells:
    rng = np.random.default_rng(1)
    return digitise(MODULES, *tracks(num, tan_u, tan_v), threshold, rng)


@pytest.mark.parametrize("tangent", [0.0, 0.2, 0.5, 1.0, 3.0])
def test_cluster_size_grows_with_the_incidence_angle(tangent: float) -> None:
    num = 2000
    along_u = len(cells_of(num, tangent, 0.0).track) / num
    along_v = len(cells_of(num, 0.0, tangent).track) / num
    assert along_u == pytest.approx(1 + 0.3 * tangent / 0.05, rel=0.03)
    assert along_v == pytest.approx(1 + 0.3 * tangent / 0.05625, rel=0.03)


def test_charge_is_the_path_length_on_average() -> None:
    cells = cells_of(5000, 0.4, -0.7)
    charge = np.bincount(cells.track, cells.value)
    assert charge.mean() == pytest.approx(0.3 * np.sqrt(1 + 0.4**2 + 0.7**2), rel=0.01)
    assert np.mean(charge - charge.mean() > 0.1) > np.mean(charge - charge.mean() < -0.1)  # tail


def test_cells_share_the_path_as_a_fine_walk_along_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "MOYAL_WIDTH", 0.0)
    module, local, heading = tracks(20, 0.8, -0.5)
    cells = digitise(MODULES, module, local, heading, 0.0, np.random.default_rng(0))
    depth = (np.arange(20000) + 0.5) / 20000 * 0.3 - 0.15
    for track in range(20):
        walk = local[track] + depth[:, None] * np.array([0.8, -0.5])
        channel = np.floor((walk + np.array([8.4, 36.0])) / [0.05, 0.05625]).astype(int)
        ids, count = np.unique(channel, axis=0, return_counts=True)
        mine = cells.track == track
        found = {tuple(c): q for c, q in zip(cells.channel[mine], cells.value[mine], strict=True)}
        length = count / 20000 * 0.3 * np.sqrt(1 + 0.8**2 + 0.5**2)
        for cell, q in zip(ids, length, strict=True):
            assert found.get(tuple(cell), 0.0) == pytest.approx(q, abs=1e-4)
        assert len(found) - len(ids) in (0, 1)  # a corner shorter than the walk's step


def test_a_cell_appears_once_in_a_cluster() -> None:
    cells = cells_of(3000, 0.8, 1.7)
    ids = np.column_stack([cells.track, cells.channel])
    assert len(np.unique(ids, axis=0)) == len(ids)


def test_threshold_drops_small_cells_but_never_the_whole_cluster() -> None:
    low = cells_of(1000, 0.5, 0.5, threshold=0.02)
    assert low.value.min() >= 0.02
    high = cells_of(1000, 0.5, 0.5, threshold=99.0)
    assert_allclose(np.bincount(high.track), 1)


def test_strips_report_one() -> None:
    module, local, heading = tracks(100, 0.5, 0.5, STRIP)
    cells = digitise(MODULES, module, local, heading, 0.005, np.random.default_rng(0))
    assert_allclose(cells.value, 1.0)


def test_charge_outside_the_sensor_is_lost() -> None:
    edge = np.array([[8.399, 35.999]])
    heading = np.array([[3.0, 3.0, 1.0]]) / np.sqrt(19)
    rng = np.random.default_rng(0)
    cells = digitise(MODULES, np.array([DISC_PIXEL]), edge, heading, 0.0, rng)
    assert cells.channel.max(axis=0).tolist() == [335, 1279]
    assert cells.value.sum() < 0.75 * 0.3 * np.sqrt(19)


def test_position_is_the_charge_weighted_centre() -> None:
    cells = clusters.Cells(
        np.array([0, 0]), np.array([[168, 640], [169, 640]]), np.array([0.3, 0.1])
    )
    found = cluster_positions(MODULES, np.array([DISC_PIXEL]), cells)
    assert_allclose(found, [[0.05 * 0.5 + 0.05 * 0.25, 0.05625 * 0.5]], atol=1e-12)
