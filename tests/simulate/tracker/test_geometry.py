from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hepattn.simulate.tracker import detector_table
from hepattn.simulate.tracker.geometry import geometry

MODULES = geometry().modules


def test_module_axes_are_right_handed_and_orthonormal() -> None:
    rotation = MODULES.rotation
    identity = np.einsum("mij,mik->mjk", rotation, rotation)
    assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-12)
    assert_allclose(np.linalg.det(rotation), 1.0)


@settings(derandomize=True, deadline=None)
@given(
    st.integers(0, len(MODULES.module) - 1),
    st.tuples(*[st.floats(-100, 100)] * 3),
)
def test_local_and_global_frames_are_inverse(module: int, local: tuple) -> None:
    index, point = np.array([module]), np.array([local])
    moved = MODULES.to_global(index, point)
    assert_allclose(MODULES.to_local(index, moved), point, atol=1e-9)
    distance = np.linalg.norm(moved - MODULES.centre[index])
    assert distance == pytest.approx(np.linalg.norm(point), abs=1e-9)


def test_module_ids_are_unique() -> None:
    ids = np.stack([MODULES.volume, MODULES.layer, MODULES.module], axis=-1)
    assert len(np.unique(ids, axis=0)) == len(ids)


def test_trapezoids_are_narrow_at_the_inner_edge() -> None:
    index = np.flatnonzero((MODULES.volume == 14) & (MODULES.layer == 2))[:1]  # 16.4 to 24.2 mm
    u = np.array([20.0])
    assert not MODULES.contains(index, u, np.array([-77.0]))[0]
    assert MODULES.contains(index, u, np.array([77.0]))[0]


def test_every_surface_of_a_barrel_is_covered_by_modules() -> None:
    rng = np.random.default_rng(0)
    for layer in (2, 4, 6, 8):
        index = np.flatnonzero((MODULES.volume == 8) & (MODULES.layer == layer))
        radius = np.hypot(*MODULES.centre[index, :2].T).mean()
        for phi, z in zip(rng.uniform(-3, 3, 50), rng.uniform(-450, 450, 50), strict=True):
            out = np.array([np.cos(phi), np.sin(phi), 0.0])
            point = np.array([0, 0, z]) + radius * out
            local = MODULES.to_local(index, np.broadcast_to(point, (len(index), 3)))
            heading = np.einsum("mij,i->mj", MODULES.rotation[index], out)
            u, v = (local[:, :2] - heading[:, :2] * (local[:, 2] / heading[:, 2])[:, None]).T
            near = (MODULES.centre[index] @ out) > 0
            assert (MODULES.contains(index, u, v) & near).any()


@pytest.mark.data
def test_modules_are_those_of_the_public_detector(data_dir: Path) -> None:
    public = pyarrow.csv.read_csv(data_dir / "trackml" / "detectors.csv.gz")
    public = {name: public[name].to_numpy() for name in public.column_names if name}
    ours = detector_table()
    assert list(ours) == list(public)

    def ordered(table: dict) -> np.ndarray:  # module numbers on discs follow another rule
        keys = [np.round(table[k], 0) for k in ("cy", "cx", "cz")]
        return np.lexsort((*keys, table["layer_id"], table["volume_id"]))

    a, b = ordered(ours), ordered(public)
    for name in set(ours) - {"module_id"}:
        assert_allclose(ours[name][a], public[name][b], atol=0.02, err_msg=name)
