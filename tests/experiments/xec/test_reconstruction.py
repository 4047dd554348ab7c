"""The loss of hidden sensors against loops over events and sensors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hepattn.experiments.xec.reconstruction import ReconstructionLoss, ReconstructionOptions
from hepattn.physics import xec

SENSORS = (0, 7, 500, 4100, 4185, 4309, 4310, 4453, 4600, 4670, 4671, 4759)  # all faces
FACE = xec.sensors().face
OPTIONS: list[dict[str, Any]] = [
    {},
    {"average": "face"},
    {"distance": "l1"},
    {"distance": "mse", "average": "face"},
    {"beta": 0.7},
    {"photon_weight": 3.0, "time_weight": 0.5},
    {"light_power": 0.5},
    {"light_power": 1.0, "average": "face", "distance": "l1"},
    {"learned": True},
    {"learned": True, "average": "face", "photon_weight": 2.0},
]


class Case:
    """Random reconstructions of two events."""

    def __init__(self) -> None:
        shape = (2, xec.NUM_SENSORS)
        self.scaled, self.truth = torch.randn(2, *shape, 2)
        self.photons = 300 * torch.rand(shape) - 5  # calibration makes some negative
        self.hidden = torch.zeros(shape, dtype=torch.bool)
        self.hidden[0, list(SENSORS)] = True
        self.hidden[1, list(SENSORS[::2])] = True
        self.time_hidden = self.hidden & (torch.arange(shape[1]) % 3 != 0)
        self.weight = torch.tensor([0.5, 2.0])

    def loss(self, options: dict[str, Any], num_channels: int = 2) -> dict[str, Tensor]:
        loss = ReconstructionLoss(ReconstructionOptions(**options))
        if loss.log_variance is not None:
            with torch.no_grad():
                loss.log_variance += torch.tensor([0.3, -0.4])
        given = (self.photons, self.hidden, self.time_hidden, self.weight)
        return loss(self.scaled[..., :num_channels], self.truth, *given)


def distance(options: ReconstructionOptions, apart: float) -> float:
    if options.distance == "mse":
        return apart**2
    if options.distance == "l1" or abs(apart) >= options.beta:
        return abs(apart) - (0.5 * options.beta if options.distance == "smooth_l1" else 0.0)
    return 0.5 * apart**2 / options.beta


def loop(options: ReconstructionOptions, case: Case, channel: int) -> float:
    """The loss of one channel, by its definition."""
    totals: dict[int, list[float]] = {}
    where = (case.hidden, case.time_hidden)[channel]
    for event, sensor in where.nonzero().tolist():
        light = max(float(case.photons[event, sensor]), 0.0)
        importance = math.sqrt(light) if channel else (light + 1) ** options.light_power
        importance *= float(case.weight[event])
        place = (event, sensor, channel)
        apart = distance(options, float(case.scaled[place] - case.truth[place]))
        face = int(FACE[sensor]) if options.average == "face" else 0
        total = totals.setdefault(face, [0.0, 0.0])
        total[0] += importance * apart
        total[1] += importance
    loss = sum(total / count for total, count in totals.values() if count)
    if options.learned:
        spread = (0.3, -0.4)[channel]
        loss = 0.5 * math.exp(-spread) * loss + 0.5 * spread
    return (options.photon_weight, options.time_weight)[channel] * loss


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_losses_are_those_of_a_loop(options: dict[str, Any]) -> None:
    case = Case()
    losses = case.loss(options)
    assert list(losses) == ["photons", "time"]
    for channel, loss in enumerate(losses.values()):
        expected = loop(ReconstructionOptions(**options), case, channel)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_networks_that_tell_no_time_have_one_loss() -> None:
    case = Case()
    assert list(case.loss({}, num_channels=1)) == ["photons"]
    assert list(case.loss({"photon_weight": 0.0})) == ["time"]
    assert list(case.loss({"time_weight": 0.0})) == ["photons"]


@pytest.mark.parametrize("average", ["face", "sensors"])
def test_what_is_not_hidden_has_no_influence(average: str) -> None:
    case = Case()
    expected = case.loss({"average": average})
    for junk in (torch.nan, torch.inf, 1e30):
        case.truth[~case.hidden] = junk
        case.truth[..., 1][~case.time_hidden] = junk
        case.photons[~case.hidden] = junk
        assert case.loss({"average": average}) == expected
    case.scaled.requires_grad_()
    losses = case.loss({"average": average})
    (gradient,) = torch.autograd.grad(sum(losses.values()), case.scaled)
    assert (gradient[~case.hidden] == 0).all()
    assert (gradient[case.time_hidden] != 0).all()


@pytest.mark.parametrize("average", ["face", "sensors"])
def test_a_batch_in_which_nothing_is_hidden_costs_nothing(average: str) -> None:
    case = Case()
    case.hidden[:] = case.time_hidden[:] = False
    case.scaled.requires_grad_()
    losses = case.loss({"average": average})
    assert all(loss == 0 for loss in losses.values())
    (gradient,) = torch.autograd.grad(sum(losses.values()), case.scaled)
    assert (gradient == 0).all()


def test_an_event_without_weight_has_no_influence() -> None:
    case = Case()
    case.weight[1] = 0.0
    expected = case.loss({"average": "face"})
    case.scaled[1] += 7.0
    assert case.loss({"average": "face"}) == expected


def test_options_that_leave_nothing_to_learn_are_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing to learn"):
        ReconstructionOptions(photon_weight=0.0, time_weight=0.0)
    with pytest.raises(ValueError, match=r"light_power=-1"):
        ReconstructionOptions(light_power=-1)
