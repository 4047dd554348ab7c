"""P-CNN gives what a loop over particles and units gives."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.models.particle_cnn import ParticleConvNetwork
from hepattn.nn.normalise import Feature
from models.jet_network_cases import make, random_jets


def convolve(layer: nn.Conv1d, x: list[Tensor]) -> list[Tensor]:
    """Convolve the particles of one jet, each (D), with nothing before and behind them."""
    (stride,) = layer.stride
    out = []
    for centre in range(0, len(x), stride):
        total = layer.bias.clone()
        for tap in range(3):
            place = centre + tap - 1
            if 0 <= place < len(x):
                total = total + layer.weight[:, :, tap] @ x[place]
        out.append(total)
    return out


def activate(norm: nn.BatchNorm1d, x: list[Tensor]) -> list[Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return [F.relu((y - norm.running_mean) * scale + norm.bias) for y in x]


def loop(net: ParticleConvNetwork, particles: Tensor) -> Tensor:
    x = convolve(net.convolution, list(particles))
    for unit in net.units:
        y = convolve(unit.first, activate(unit.first_norm, x))
        y = convolve(unit.second, activate(unit.second_norm, y))
        kept = x[:: unit.stride]
        x = [unit.shortcut(old) + new for old, new in zip(kept, y, strict=True)]
    x = activate(net.norm, x)
    mean = sum(x) / len(x)
    return net.head(F.relu(net.dense(mean)))


@pytest.mark.parametrize("length", [1, 2, 5, 8, 11])
def test_logits_are_those_of_a_loop(length: int) -> None:
    net = make("particle_cnn")
    x, vectors, valid = random_jets(length, 12)
    particles = x[0, :length].clone()
    particles[:, 0] = ((particles[:, 0] - 1.7) * 0.7).clamp(-5, 5)
    assert_close(net(x, vectors, valid)[0], loop(net, particles), atol=1e-5, rtol=1e-4)


def test_the_published_network_halves_the_sequence_from_the_second_unit_on() -> None:
    net = ParticleConvNetwork([Feature(f"f{i}") for i in range(17)], 10).eval()
    assert [unit.stride for unit in net.units] == [1, 2, 2]
    assert [tuple(c.weight.shape) for c in net.modules() if isinstance(c, nn.Conv1d)] == [
        (32, 17, 3),
        (64, 32, 3),
        (64, 64, 3),
        (64, 64, 3),
        (64, 64, 3),
        (128, 64, 3),
        (128, 128, 3),
    ]
    lengths = []
    net.norm.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    net(torch.randn(1, 128, 17), torch.zeros(1, 128, 4), torch.ones(1, 128, dtype=torch.bool))
    assert lengths == [32]
