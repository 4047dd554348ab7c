import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.experiments.xec import baselines
from hepattn.physics import xec
from hepattn.simulate.xec import XecConfig, make_events

POSITION, _, FACE, IS_PMT = xec.sensors()
SOME = [0, 43, 2000, 2050, 4091, 4195, 4200, 4320, 4600, 4759]


@pytest.fixture(scope="module")
def events() -> dict[str, Tensor]:
    made = make_events(XecConfig(), 60)
    columns = {name: torch.tensor(made[name]) for name in ("npho", "uvwTruth", "energyTruth")}
    return columns | {"known": columns["npho"] < 9e9}


@pytest.fixture(scope="module")
def hidden() -> tuple[Tensor, Tensor]:
    """Photons of four events, and which are known: less than a third, no PMT on the top."""
    photons = torch.tensor(make_events(XecConfig(), 4, first=60)["npho"])
    known = (torch.rand(photons.shape, generator=torch.Generator().manual_seed(0)) < 0.3) & (
        photons < 9e9
    )
    known[:, torch.tensor(FACE == 4)] = False
    known[1, 4308:4452] = False
    known[1, 4310] = True
    return photons, known


def loop_centroid(photons: Tensor, known: Tensor) -> list[float]:
    sensors = [s for s in range(4092) if known[s]]
    row, column = divmod(max(sensors, key=lambda s: float(photons[s])), 44)
    total = u = v = 0.0
    for sensor in sensors:
        if abs(sensor // 44 - row) <= 3 and abs(sensor % 44 - column) <= 3:
            weight = float(photons[sensor])
            total += weight
            u += weight * (sensor % 44 - 21.5) * 1.509777
            v -= weight * math.radians(1.349682) * (sensor // 44 - 46) * 64.97
    return [u / total, v / total]


def loop_neighbours(known: Tensor, sensor: int) -> list[int]:
    return [
        other
        for other in range(4760)
        if FACE[other] == FACE[sensor]
        and other != sensor
        and known[other]
        and np.linalg.norm(POSITION[other] - POSITION[sensor]) < 20
    ]


def test_centroid_is_that_of_a_loop_also_at_the_edge(hidden: tuple[Tensor, Tensor]) -> None:
    photons, known = (x.clone() for x in hidden)
    photons[0, 44 * 92] = 1e6
    known[0, 44 * 92] = True
    found = baselines.centroid(photons, known)
    expected = [loop_centroid(*event) for event in zip(photons, known, strict=True)]
    assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_centroid_of_a_dark_event_is_finite() -> None:
    dark = torch.zeros(1, 4760)
    assert baselines.centroid(dark, dark == 0).isfinite().all()
    assert baselines.centroid(dark, dark > 0).isfinite().all()


def test_a_point_of_light_is_found_where_it_is() -> None:
    uvw = np.array([[5.0, -30.0, 2.5], [-11.0, 12.0, 9.0], [0.0, 50.0, 20.0]])
    light = torch.tensor([1e6, 2e6, 5e5])
    part = xec.solid_angles(xec.uvw_to_xyz(uvw)) / (4 * math.pi)
    photons = light[:, None] * torch.tensor(part, dtype=torch.float32)
    known = torch.rand(photons.shape, generator=torch.Generator().manual_seed(0)) < 0.9
    uv = torch.tensor(uvw[:, :2], dtype=torch.float32)
    depth, found = baselines.least_squares_depth(photons.where(known, 1e10), known, uv)
    assert_close(depth, torch.tensor(uvw[:, 2], dtype=torch.float32), rtol=0.02, atol=0)
    assert_close(found, light, rtol=0.01, atol=0)


def loop_depth(photons: np.ndarray, use: np.ndarray, uv: np.ndarray) -> tuple[float, list[float]]:
    """The depth tried that fits best, and the light at each, by numpy's least squares."""
    misfits, lights = [], []
    weight = 1 / np.sqrt(photons[use] + 100.0)
    for depth in baselines.DEPTHS:
        part = xec.solid_angles(xec.uvw_to_xyz([*uv, depth]))[use] / (4 * math.pi)
        light, misfit, *_ = np.linalg.lstsq((weight * part)[:, None], weight * photons[use])
        misfits.append(float(misfit[0]))
        lights.append(float(light[0]))
    return float(baselines.DEPTHS[np.argmin(misfits)]), lights[np.argmin(misfits)]


def test_depth_and_light_are_those_of_a_loop(hidden: tuple[Tensor, Tensor]) -> None:
    photons, known = hidden
    uv = baselines.centroid(photons, known)
    depth, light = baselines.least_squares_depth(photons, known, uv)
    spacing = baselines.DEPTHS[1] / baselines.DEPTHS[0]
    for event in range(len(photons)):
        x, use = photons[event].double().numpy(), known[event].numpy()
        place = uv[event].double().numpy()
        foot = xec.uvw_to_xyz([*place, 0.0])
        near = use & ~IS_PMT & (np.linalg.norm(POSITION - foot, axis=1) < 15)
        expected, _ = loop_depth(x, near, place)
        assert expected / spacing < depth[event] < expected * spacing
        assert float(light[event]) == pytest.approx(loop_depth(x, use, place)[1], rel=0.03)


def test_neighbour_mean_is_that_of_a_loop(hidden: tuple[Tensor, Tensor]) -> None:
    photons, known = hidden
    found = baselines.neighbour_mean(photons, known)
    for event in range(2):
        for sensor in SOME:
            around = loop_neighbours(known[event], sensor)
            if around:
                expected = photons[event, around].double().mean()
                assert float(found[event, sensor]) == pytest.approx(float(expected), rel=1e-4)


def test_a_sensor_without_neighbours_takes_the_mean_of_its_face(
    hidden: tuple[Tensor, Tensor],
) -> None:
    photons, known = hidden
    found = baselines.neighbour_mean(photons, known)
    assert not loop_neighbours(known[1], 4440)
    assert found[1, 4440] == photons[1, 4310]  # the only known sensor of the face
    assert (found[:, torch.tensor(FACE == 4)] == 0).all()  # the face has none


def test_solid_angle_estimate_is_that_of_a_loop(hidden: tuple[Tensor, Tensor]) -> None:
    photons, known = hidden
    photons = torch.cat([photons[:1], photons[1:2] / 1000])  # too dim in the second event
    source = torch.tensor(xec.uvw_to_xyz([[3.0, -20.0, 4.0], [5.0, 30.0, 9.0]]))
    found = baselines.solid_angle_estimate(photons, known[:2], source)
    mean = baselines.neighbour_mean(photons, known[:2])
    fallbacks = 0
    for event in range(2):
        angle = xec.solid_angles(source[event].numpy())
        for sensor in SOME:
            around = loop_neighbours(known[event], sensor)
            total = float(photons[event, around].double().sum())
            expected = float(mean[event, sensor])
            if total > 50 and angle[around].sum() > 0:
                expected = total * angle[sensor] / angle[around].sum()
            else:
                fallbacks += 1
            assert float(found[event, sensor]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert 0 < fallbacks < 2 * len(SOME)


def test_linear_energy_sums_what_is_known(hidden: tuple[Tensor, Tensor]) -> None:
    photons, known = hidden
    scale = torch.tensor([2e-8, 5e-8])
    found = baselines.linear_energy(photons, known, scale)
    for event in range(len(photons)):
        expected = 0.0
        for number, kind in enumerate((~IS_PMT, IS_PMT)):
            use = known[event].numpy() & kind
            expected += float(scale[number]) * photons[event].numpy()[use].mean() * kind.sum()
        assert float(found[event]) == pytest.approx(expected, rel=1e-4)


def test_the_scale_of_the_energy_is_the_one_that_made_it(events: dict[str, Tensor]) -> None:
    photons, known = events["npho"], events["known"]
    scale = torch.tensor([3e-8, 7e-8])
    energy = baselines.linear_energy(photons, known, scale)
    assert_close(baselines.fit_linear_energy(photons, known, energy), scale, rtol=1e-3, atol=0)


def test_a_line_is_fitted_as_numpy_does(events: dict[str, Tensor]) -> None:
    truth = events["uvwTruth"][:, 0]
    estimate = baselines.centroid(events["npho"], events["known"])[:, 0]
    slope, offset = np.polyfit(estimate.numpy(), truth.numpy(), 1)
    assert_close(
        baselines.fit_line(estimate, truth), torch.tensor([offset, slope], dtype=torch.float32)
    )


def test_what_unknown_channels_hold_does_not_matter(hidden: tuple[Tensor, Tensor]) -> None:
    photons, known = hidden
    source = torch.tensor(xec.uvw_to_xyz([[3.0, -20.0, 4.0]] * 4))
    filled = [photons.where(known, value) for value in (0.0, 1e10, torch.nan)]
    uv = [baselines.centroid(x, known) for x in filled]
    for estimate in (
        uv,
        [baselines.least_squares_depth(x, known, uv[0])[0] for x in filled],
        [baselines.neighbour_mean(x, known) for x in filled],
        [baselines.solid_angle_estimate(x, known, source) for x in filled],
        [baselines.linear_energy(x, known, torch.ones(2)) for x in filled],
    ):
        assert estimate[0].isfinite().all()
        assert_close(estimate[1], estimate[0], rtol=0, atol=0)
        assert_close(estimate[2], estimate[0], rtol=0, atol=0)


def test_estimates_resolve_simulated_events(events: dict[str, Tensor]) -> None:
    photons, known, truth = events["npho"], events["known"], events["uvwTruth"]

    def res68(error: Tensor) -> float:
        return float(error.abs().quantile(0.68))

    uv = baselines.centroid(photons, known)
    depth, light = baselines.least_squares_depth(photons, known, uv)
    assert res68(uv[:, 0] - truth[:, 0]) < 1.4
    assert res68(uv[:, 1] - truth[:, 1]) < 1.1
    offset, slope = baselines.fit_line(depth, truth[:, 2])
    assert res68(offset + slope * depth - truth[:, 2]) < 1.2
    relative = light / events["energyTruth"]
    assert res68(relative / relative.median() - 1) < 0.04
    scale = baselines.fit_linear_energy(photons, known, events["energyTruth"])
    energy = baselines.linear_energy(photons, known, scale)
    assert res68(energy / events["energyTruth"] - 1) < 0.09
