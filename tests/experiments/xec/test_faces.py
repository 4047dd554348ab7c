"""Images of the faces: every sensor has its place and comes back from it."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hepattn.experiments.xec.faces import IMAGES, Faces
from hepattn.physics import xec


def images_of(faces: Faces, values: torch.Tensor) -> list[torch.Tensor]:
    return [faces.image(values, name) for name in faces.images]


@pytest.mark.parametrize("outer", IMAGES)
def test_what_sensors_have_comes_back(outer: str) -> None:
    faces = Faces(outer)
    values = torch.randn(2, xec.NUM_SENSORS, 3)
    back = faces.to_sensors(images_of(faces, values), faces.nodes(values))
    covered = faces.covered
    assert_close(back[:, covered], values[:, covered])
    assert (back[:, ~covered] == 0).all()


def test_only_the_coarse_image_lacks_sensors() -> None:
    assert Faces("split").covered.all()
    assert Faces("finegrid").covered.all()
    missing = (~Faces("coarse").covered).nonzero()[:, 0]
    assert missing.tolist() == list(range(4742, 4760))


def test_photons_of_the_fine_grid_add_up_to_those_of_the_outer_face() -> None:
    faces = Faces("finegrid")
    photons = torch.rand(2, xec.NUM_SENSORS, dtype=torch.float64) * 1000
    outer = torch.from_numpy(np.array(xec.sensors().face == xec.FACES.index("outer")))
    fine = faces.photons(photons, "fine").sum((1, 2))
    assert_close(fine, photons[:, outer].sum(1), rtol=1e-6, atol=0)
    assert torch.equal(faces.photons(photons, "inner"), faces.image(photons, "inner"))


def test_sensors_of_the_centre_are_read_from_its_own_image() -> None:
    faces = Faces("split")
    images = [torch.zeros(1, *faces.index(name).shape, 1) for name in faces.images]
    images[faces.images.index("centre")] += 1
    sensors = faces.to_sensors(images, torch.zeros(1, 2, 73, 1))[0, :, 0]
    assert set(sensors.nonzero()[:, 0].tolist()) == set(xec.grid("centre").ravel().tolist())


@pytest.mark.parametrize("outer", IMAGES)
def test_positions_are_those_of_the_sensors(outer: str) -> None:
    faces = Faces(outer)
    for name in faces.images:
        expected = xec.sensors().position[faces.index(name).numpy()]
        np.testing.assert_allclose(faces.positions(name), expected, rtol=1e-6)
    assert faces.num_tokens == len(faces.images) + 2
