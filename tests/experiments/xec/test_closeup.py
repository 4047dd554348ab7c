"""What is around a sensor: the closeup of the brightest one, and each one's neighbours."""

import numpy as np
import torch
from torch.testing import assert_close

from hepattn.experiments.xec.closeup import Closeup
from hepattn.experiments.xec.faces import Faces
from hepattn.experiments.xec.sensor_head import nearest_sensors
from hepattn.physics import xec

S = xec.NUM_SENSORS


def one_bright(row: int, column: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    sensor = int(xec.grid("inner")[row, column])
    photons = torch.rand(1, S)
    photons[0, sensor] = 100.0
    photons[0, 4500] = 1000.0  # not on the inner face
    return photons, torch.ones(1, S, dtype=torch.bool), sensor


def test_a_closeup_has_the_brightest_sensor_in_its_middle() -> None:
    photons, valid, sensor = one_bright(30, 20)
    found, there = Faces().closeup(photons, valid, 6)
    assert there.all()
    assert found[0, 3, 3] == sensor
    assert found[0].tolist() == xec.grid("inner")[27:33, 17:23].tolist()


def test_a_closeup_ends_at_the_edge_of_the_face() -> None:
    photons, valid, _ = one_bright(1, 43)
    found, there = Faces().closeup(photons, valid, 6)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:, :4] = True
    assert torch.equal(there[0], expected)
    assert found[0][expected].tolist() == xec.grid("inner")[:4, 40:44].ravel().tolist()


def test_a_sensor_that_is_not_known_is_not_the_brightest() -> None:
    photons, valid, sensor = one_bright(30, 20)
    second = int(xec.grid("inner")[60, 10])
    photons[0, second] = 50.0
    photons[0, sensor] = torch.nan
    valid[0, sensor] = False
    assert Faces().closeup(photons, valid, 6)[0][0, 3, 3] == second


def test_a_closeup_sees_shares_of_the_light_alone() -> None:
    closeup = Closeup(num_channels=4, size=4, dim=8)
    light, channels = torch.rand(2, 16) + 0.1, torch.randn(2, 16, 4)
    seen = torch.ones(2, 16, dtype=torch.bool)
    other = channels.clone()
    other[..., 0] = torch.nan  # the scaled photons are replaced
    assert_close(closeup(light, seen, channels), closeup(1000 * light, seen, other))
    dark = closeup(torch.zeros(2, 16), torch.zeros_like(seen), channels)
    assert dark.isfinite().all()


def test_neighbours_are_the_nearest_sensors_of_the_face() -> None:
    position = torch.from_numpy(np.array(xec.sensors().position))
    face = torch.from_numpy(np.array(xec.sensors().face))
    found = nearest_sensors(16)
    assert (face[found] == face.unsqueeze(1)).all()
    apart = torch.cdist(position, position).fill_diagonal_(torch.inf)
    apart = apart.masked_fill(face.unsqueeze(1) != face, torch.inf)
    expected = apart.topk(16, largest=False).values
    assert_close(apart.gather(1, found).sort(1).values, expected.sort(1).values, atol=0.02, rtol=0)
    assert all(len(set(row)) == 16 for row in found.tolist())


def test_a_place_in_the_list_of_neighbours_is_a_place_in_space() -> None:
    grid = xec.grid("inner")
    inside = torch.from_numpy(grid[4:-4, 4:-4].ravel().copy())
    found = nearest_sensors(16)[inside]
    row, column = found // grid.shape[1], found % grid.shape[1]
    steps = torch.stack([row - (inside // 44).unsqueeze(1), column - (inside % 44).unsqueeze(1)])
    assert (steps == steps[:, :1]).all()
