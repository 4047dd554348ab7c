"""Which sensors are hidden."""

import numpy as np
import pytest
import torch

from hepattn.experiments.xec.masking import MaskOptions, MaskSampler, event_noise
from hepattn.physics import xec

S = xec.NUM_SENSORS
FACE = torch.from_numpy(np.array(xec.sensors().face))


def draw(options: MaskOptions, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    photons = torch.rand(batch, S).pow(8) * 1e4
    valid = torch.rand(batch, S) < 0.9
    return photons, valid, MaskSampler(options)(photons, valid)


@pytest.mark.parametrize("shape", ["uniform", "clustered", "flat"])
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.6])
def test_the_share_of_known_sensors_is_hidden(shape: str, ratio: float) -> None:
    _, valid, hidden = draw(MaskOptions(ratio=ratio, shape=shape))
    assert not (hidden & ~valid).any()
    assert (hidden.sum(1) == (valid.sum(1) * ratio + 1e-6).floor()).all()


def test_faces_can_have_their_own_shares() -> None:
    options = MaskOptions(ratio=0.15, face_ratios={"inner": 0.05})
    _, valid, hidden = draw(options)
    for number, name in enumerate(xec.FACES):
        own = number == FACE
        ratio = 0.05 if name == "inner" else 0.15
        assert (hidden[:, own].sum(1) == (valid[:, own].sum(1) * ratio + 1e-6).floor()).all()


def test_uniform_masks_hide_each_sensor_alike() -> None:
    sampler = MaskSampler(MaskOptions(ratio=0.3))
    valid = torch.ones(400, S, dtype=torch.bool)
    share = sampler(torch.ones(400, S), valid).float().mean(0)
    assert abs(share.mean() - 0.3) < 1e-3
    assert share.std() < 1.2 * (0.3 * 0.7 / 400) ** 0.5


def test_bright_sensors_can_be_hidden_more_often() -> None:
    options = MaskOptions(ratio=0.1, bright_factor=5.0, bright=100.0)
    photons, valid, hidden = draw(options, batch=20)
    bright = (photons > 100) & valid
    dim = ~bright & valid
    assert hidden[bright].float().mean() > 3 * hidden[dim].float().mean()


def test_flat_masks_hide_as_many_of_each_brightness() -> None:
    photons, valid, hidden = draw(MaskOptions(ratio=0.02, shape="flat"), batch=50)
    light = photons.log1p()
    edges = torch.tensor([0.6, 2.4, 4.2, 6.0, 7.8])
    of_all = torch.bucketize(light[valid], edges).bincount(minlength=6)[1:5].float()
    of_hidden = torch.bucketize(light[hidden], edges).bincount(minlength=6)[1:5].float()
    assert of_all.max() / of_all.min() > 1.5
    assert of_hidden.max() / of_hidden.min() < 1.3


def test_clusters_are_together_on_a_face() -> None:
    _, _, hidden = draw(MaskOptions(ratio=0.05, shape="clustered", num_clusters=4), batch=4)
    position = torch.from_numpy(np.array(xec.sensors().position, np.float32))
    for own in hidden:
        apart = torch.cdist(position[own], position[own]).fill_diagonal_(torch.inf)
        assert (apart.amin(1) < 11).float().mean() > 0.9  # the coarsest pitch is 10.4 cm


def test_evaluations_hide_the_same_whatever_the_batch() -> None:
    sampler = MaskSampler(MaskOptions(ratio=0.6))
    photons, valid = torch.ones(3, S), torch.ones(3, S, dtype=torch.bool)
    together = sampler(photons, valid, event_noise([5, 6, 7], S, photons.device))
    alone = sampler(photons[:1], valid[:1], event_noise([6], S, photons.device))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ratio=1 must be at least 0 and below 1"):
        MaskOptions(ratio=1)
    with pytest.raises(ValueError, match=r"face_ratios names \['outter'\]; faces are inner"):
        MaskOptions(face_ratios={"outter": 0.1})
