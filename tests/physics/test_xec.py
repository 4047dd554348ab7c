import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import dblquad

from hepattn.physics import xec

POSITION, NORMAL, FACE, IS_PMT = xec.sensors()
POINTS = xec.uvw_to_xyz([[0.3, -0.2, 3.0], [10.0, 40.0, 0.4], [-20.0, -60.0, 15.0]])


def cylinder(r: float, phi: float, z: float) -> list[float]:
    return [r * math.cos(math.radians(phi)), r * math.sin(math.radians(phi)), z]


def test_there_are_4760_sensors_of_which_668_are_pmts() -> None:
    counts = dict(zip(xec.FACES, np.bincount(FACE).tolist(), strict=True))
    assert counts == {"inner": 4092, "us": 144, "ds": 144, "outer": 234, "top": 73, "bottom": 73}
    assert IS_PMT.sum() == 668
    assert_array_equal(IS_PMT, FACE != 0)
    assert not POSITION.flags.writeable


@pytest.mark.parametrize(
    ("sensor", "expected"),
    [
        (44 * 10 + 3, cylinder(64.97, 180 - 36 * 1.349682, -18.5 * 1.509777)),
        (4092 + 9 * 2 + 7, cylinder(106.27, 180 - 9.5 * 5.23, 3 * 10.356)),
        (4196, cylinder(106.27, 180 - 0.5 * 3.48665, 2 * 6.2)),  # a coarse sensor, re-placed
        (4759, cylinder(106.27, 180 + 2.5 * 3.48665, 6.2)),
        (4308 + 6 * 20 + 4, cylinder(69.53 + 4 * 6.684, 180 + 8.5 * 5.23, -35.1547 - 4 * 2.3369)),
        (4452 + 6 * 20 + 4, cylinder(69.53 + 4 * 6.684, 180 + 8.5 * 5.23, 35.1547 + 4 * 2.3369)),
        (4596 + 11 + 12 + 2, cylinder(68.27 + 2 * 6.91, 117.24, -3 * 6.12)),
        (4669 + 72, cylinder(68.27 + 5 * 6.91, -117.24, 6.5 * 6.12)),
    ],
)
def test_positions_follow_the_table(sensor: int, expected: list[float]) -> None:
    assert_allclose(POSITION[sensor], expected, atol=1e-9)


def test_normals_are_unit_vectors_into_the_xenon() -> None:
    assert_allclose(np.linalg.norm(NORMAL, axis=1), 1)
    assert xec.is_in_xenon(POSITION + 1.0 * NORMAL).all()
    assert not xec.is_in_xenon(POSITION[IS_PMT] - 1.0 * NORMAL[IS_PMT]).any()
    assert_allclose(np.abs(NORMAL[FACE == 1, 2]), 0.944, atol=1e-3)


def test_face_centroids() -> None:
    expected = [(-52.7, 0, 0), (-70, 0, -41), (-70, 0, 41), (-87.8, 0, 0)]
    expected += [(-39.6, 76.9, 0), (-39.6, -76.9, 0)]
    assert_allclose(xec.face_centroids(), expected, atol=0.06)


@pytest.mark.parametrize(
    ("permutation", "sign", "faces"),
    [
        (xec.mirror_z(), (1, 1, -1), [0, 2, 1, 3, 4, 5]),
        (xec.mirror_y(), (1, -1, 1), [0, 1, 2, 3, 5, 4]),
    ],
)
def test_mirrors_are_exact_permutations(
    permutation: np.ndarray, sign: tuple[int, ...], faces: list[int]
) -> None:
    assert_array_equal(np.sort(permutation), np.arange(4760))
    assert_array_equal(permutation[permutation], np.arange(4760))
    assert_array_equal(POSITION[permutation], POSITION * sign)
    assert_array_equal(NORMAL[permutation], NORMAL * sign)
    assert_array_equal(FACE[permutation], np.array(faces)[FACE])


@pytest.mark.parametrize("permutation", [xec.mirror_z(), xec.mirror_y()])
def test_light_of_a_mirrored_point_is_the_mirrored_light(permutation: np.ndarray) -> None:
    sign = (1, 1, -1) if permutation is xec.mirror_z() else (1, -1, 1)
    assert_allclose(xec.solid_angles(POINTS * sign), xec.solid_angles(POINTS)[:, permutation])


@pytest.mark.parametrize("name", ["top", "bottom"])
def test_hexagonal_edges_are_all_pairs_closer_than_8_cm(name: str) -> None:
    edges, position = xec.hex_edges(), POSITION[xec.hex_face(name)]
    distance = np.linalg.norm(position[:, None] - position, axis=-1)
    close = (distance < 8) & ~np.eye(73, dtype=bool)
    assert len(edges.source) == close.sum() == 366
    assert close[edges.source, edges.target].all()
    assert len(set(zip(edges.source, edges.target, strict=True))) == 366


def test_directions_of_hexagonal_edges_are_steps_from_source_to_target() -> None:
    edges, position = xec.hex_edges(), POSITION[xec.hex_face("top")]
    step = position[edges.target] - position[edges.source]
    row = np.hypot(*position[:, :2].T)
    outwards = np.round((row[edges.target] - row[edges.source]) / 6.91)
    along = np.round(step[:, 2] / 3.06)
    expected = {1: (0, -2), 2: (0, 2), 3: (-1, -1), 4: (-1, 1), 5: (1, -1), 6: (1, 1)}
    for direction, outward, z in zip(edges.direction, outwards, along, strict=True):
        assert expected[direction] == (outward, z)


@pytest.mark.parametrize("name", ["inner", "us", "ds", "coarse", "centre"])
def test_grids_are_in_order_of_phi_and_of_z_or_r(name: str) -> None:
    ids = xec.grid(name)
    x, y, z = np.moveaxis(POSITION[ids], -1, 0)
    ordered = np.arctan2(y, -x), np.hypot(x, y) if name in ("us", "ds") else z
    if name == "coarse":  # twelve are elsewhere
        regular = ~np.isin(ids, xec.grid("centre"))
        assert (~regular).sum() == 12
        ordered = [np.where(regular, o, np.nan) for o in ordered]
    assert np.nanmax(np.diff(ordered[0], axis=0)) < 0
    assert np.nanmin(np.diff(ordered[1], axis=1)) > 0


def test_unknown_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="name='outer' is no grid"):
        xec.grid("outer")
    with pytest.raises(ValueError, match="name='inner' is no hexagonal face"):
        xec.hex_face("inner")


def test_the_fine_grid_conserves_photons_of_every_outer_sensor() -> None:
    fine = xec.fine_grid()
    assert fine.sensor.shape == fine.share.shape == (72, 45)
    outer = np.flatnonzero(FACE == 3)
    photons = np.random.default_rng(0).uniform(1, 1e4, 4760)
    cells = photons[fine.sensor] * fine.share
    total = np.bincount(fine.sensor.ravel(), cells.ravel(), minlength=4760)
    assert_array_equal(np.unique(fine.sensor), outer)
    assert_allclose(total[outer], photons[outer], rtol=1e-6)
    in_centre = np.isin(fine.sensor, xec.grid("centre"))
    assert_allclose(fine.share, np.where(in_centre, 1 / 6, 1 / 15))


def test_cells_of_the_fine_grid_lie_around_their_sensors() -> None:
    sensor = xec.fine_grid().sensor
    phi = np.deg2rad((np.arange(72) - 35.5) * 5.23 / 3)[:, None]
    z = (np.arange(45) - 22) * 10.356 / 5
    x, y = -106.27 * np.cos(phi), -106.27 * np.sin(phi)
    away = np.moveaxis(POSITION[sensor], -1, 0) - np.broadcast_arrays(x, y, z)
    in_centre = np.isin(sensor, xec.grid("centre"))
    for own, (along_phi, along_z) in ((in_centre, (3.3, 3.2)), (~in_centre, (4.9, 5.3))):
        assert np.hypot(away[0], away[1])[own].max() < along_phi
        assert np.abs(away[2])[own].max() < along_z


coordinates = st.tuples(st.floats(-40, 40), st.floats(-100, 100), st.floats(-1, 41))


@settings(derandomize=True, deadline=None)
@given(coordinates)
def test_uvw_and_xyz_are_inverse(uvw: tuple[float, float, float]) -> None:
    assert_allclose(xec.xyz_to_uvw(xec.uvw_to_xyz(uvw)), uvw, atol=1e-10)


def test_uvw_of_the_inner_sensors() -> None:
    uvw = xec.xyz_to_uvw(POSITION[xec.grid("inner")])
    assert_allclose(uvw[..., 2], 0, atol=1e-9)
    assert_allclose(uvw[0, :, 1], 70.4, atol=0.01)
    assert_allclose(uvw[..., 0], POSITION[xec.grid("inner"), 2])


def test_the_fiducial_volume_is_in_the_xenon() -> None:
    uvw = np.random.default_rng(0).uniform((-50, -90, -5), (50, 90, 45), (2000, 3))
    inside = xec.is_fiducial(uvw, max_depth=38.0)
    u, v, w = np.abs(uvw).T
    assert_array_equal(inside, (u < 23.9) & (v < 67.9) & (uvw[:, 2] >= 0) & (w <= 38))
    assert xec.is_in_xenon(xec.uvw_to_xyz(uvw[inside])).all()


@settings(derandomize=True, deadline=None)
@given(st.floats(0.01, 3.13), st.floats(-3.14, 3.14))
def test_angles_and_vectors_are_inverse(theta: float, phi: float) -> None:
    vector = xec.angles_to_vector(theta, phi)
    x, y, z = vector
    assert (math.acos(z), math.atan2(y, -x)) == pytest.approx((theta, phi), abs=1e-9)
    assert_allclose(xec.vector_to_angles(5 * vector), (theta, phi), atol=1e-12)


@pytest.mark.parametrize("point", [(0.0, 0.0, 5.0), (1.0, -2.0, 0.7), (0.3, 0.2, 0.1)])
def test_rectangles_and_discs_agree_with_integration(point: tuple[float, float, float]) -> None:
    x, y, h = point

    def integrand(b: float, a: float) -> float:
        return h / ((x - a) ** 2 + (y - b) ** 2 + h**2) ** 1.5

    expected, _ = dblquad(integrand, -0.6, 0.6, -0.4, 0.4, epsabs=1e-10)
    assert xec.rectangle_solid_angle(x, y, h, 0.6, 0.4) == pytest.approx(expected, rel=1e-8)


def test_a_closed_box_fills_the_sphere() -> None:
    sides, inside = np.array([1.0, 2.0, 0.5]), np.array([0.4, -1.3, 0.1])
    total = 0.0
    for axis in range(3):
        a, b = (other for other in range(3) if other != axis)
        for side in (-1, 1):
            height = sides[axis] - side * inside[axis]
            total += xec.rectangle_solid_angle(inside[a], inside[b], height, sides[a], sides[b])
    assert total == pytest.approx(4 * math.pi)


def test_a_point_on_a_rectangle_sees_half_the_sphere_and_beside_it_nothing() -> None:
    found = xec.rectangle_solid_angle([0.1, 2.0], [0.2, 0.0], [0.0, 0.0], 1.0, 1.0)
    assert_allclose(found, [2 * math.pi, 0], atol=1e-12)


def test_discs_are_right_to_half_a_percent_on_the_axis_from_5_cm() -> None:
    height = np.array([5.0, 10.0, 50.0])
    exact = 2 * np.pi * (1 - height / np.hypot(height, 2.25))
    found = xec.disc_solid_angle(height**2, height, 2.25)
    assert_allclose(found, exact, rtol=0.0055)
    assert_allclose(found[1:], exact[1:], rtol=5e-4)


def rays_onto(sensor: int, point: np.ndarray, num: int = 200) -> float:
    """Solid angle of a sensor by summing over small pieces of it."""
    normal = NORMAL[sensor]
    one = np.cross(normal, [0.1, 0.2, 1.0]) if IS_PMT[sensor] else np.array([0, 0, 1.0])
    one = one / np.linalg.norm(one)
    half = 2.25 if IS_PMT[sensor] else 0.59
    a, b = (np.stack(np.meshgrid(*2 * [np.arange(num) + 0.5])) * 2 / num - 1).reshape(2, -1) * half
    piece = (2 * half / num) ** 2
    if IS_PMT[sensor]:
        a, b = (c[np.hypot(a, b) < half] for c in (a, b))
    spot = POSITION[sensor] + a[:, None] * one + b[:, None] * np.cross(normal, one)
    to_point = point - spot
    height = to_point @ normal
    return float((height / np.linalg.norm(to_point, axis=1) ** 3).sum() * piece)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_solid_angles_agree_with_summing_over_pieces_of_the_sensors(dtype: type) -> None:
    rng = np.random.default_rng(0)
    for point in POINTS:
        distance = np.linalg.norm(POSITION - point, axis=1)
        close = distance.argsort()[[0, 1, 5, 40, 100, 300]]
        found = xec.solid_angles(point.astype(dtype))
        assert found.dtype == dtype
        pmts = rng.choice(np.flatnonzero(IS_PMT), 20)
        for sensor in [*close, *rng.choice(4092, 20), *pmts[distance[pmts] > 15]]:
            if found[sensor] > 1e-5:
                rtol = 0.03 if IS_PMT[sensor] else 3e-4
                assert_allclose(found[sensor], rays_onto(sensor, point), rtol=rtol)


def test_sensors_that_face_away_or_are_hidden_get_nothing() -> None:
    found = xec.solid_angles(POINTS)
    facing = ((POINTS[:, None] - POSITION) * NORMAL).sum(-1) > 1e-9
    step = np.linspace(0, 1, 2001)[:, None]
    for point, angles, faces in zip(POINTS, found, facing, strict=True):
        path = point[:2] + step[:, None] * (POSITION[IS_PMT, :2] - point[:2])  # (2001, PMT, 2)
        nearest = np.linalg.norm(path, axis=-1).min(0)
        clear = np.abs(nearest - xec.RADIUS_IN) > 0.01
        seen = faces[IS_PMT] & (nearest > xec.RADIUS_IN)
        assert_array_equal(angles[IS_PMT][clear] > 0, seen[clear])
        assert_array_equal(angles[~IS_PMT] > 0, faces[~IS_PMT])
    assert ((found == 0) & facing)[:, IS_PMT].any()


def test_solid_angles_keep_the_shape_of_the_points() -> None:
    found = xec.solid_angles(POINTS[None, :2])
    assert found.shape == (1, 2, 4760)
    assert_array_equal(found[0, 1], xec.solid_angles(POINTS[1]))


def test_areas_are_those_of_four_chips_and_of_a_photocathode() -> None:
    areas = xec.active_areas()
    assert_allclose(areas[~IS_PMT], 4 * 0.59**2)
    assert_allclose(areas[IS_PMT], math.pi * 2.25**2)


def test_neighbours_are_all_close_pairs_of_a_face() -> None:
    source, target = xec.neighbours_within(12.0)
    assert (np.diff(target) >= 0).all()
    for sensor in (0, 2000, 4195, 4200, 4400, 4640, 4757):
        distance = np.linalg.norm(POSITION - POSITION[sensor], axis=1)
        expected = np.flatnonzero((distance < 12) & (FACE[sensor] == FACE))
        assert_array_equal(source[target == sensor], expected[expected != sensor])
