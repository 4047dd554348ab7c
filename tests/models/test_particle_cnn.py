"""P-CNN gives what a loop over particles and units gives, and is as large as published."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.models.particle_cnn import ParticleConvNetwork
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.normalise import Feature
from models.jet_network_cases import FEATURES, random_jets, settle


def convolve(layer: nn.Conv1d, x: list[Tensor]) -> list[Tensor]:
    """Convolve the particles of one jet, each (D), with nothing before and behind them."""
    (stride,) = layer.stride
    out = []
    for centre in range(0, len(x), stride):
        total = torch.zeros(layer.out_channels)
        for tap in range(3):
            place = centre + tap - 1
            if 0 <= place < len(x):
                total = total + layer.weight[:, :, tap] @ x[place]
        out.append(total)
    return out


def activate(norm: MaskedBatchNorm, x: list[Tensor]) -> list[Tensor]:
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
    net = ParticleConvNetwork(FEATURES, 3, 8, ((8, 8), (8, 12), (12,)), dense_dim=16).eval()
    settle(net)
    x, vectors, valid = random_jets(length, 12)
    particles = x[0, :length].clone()
    particles[:, 0] = ((particles[:, 0] - 1.7) * 0.7).clamp(-5, 5)
    assert_close(net(x, vectors, valid)[0], loop(net, particles), atol=1e-5, rtol=1e-4)


def published(num_features: int, num_classes: int) -> ParticleConvNetwork:
    return ParticleConvNetwork([Feature(f"f{i}") for i in range(num_features)], num_classes).eval()


@pytest.mark.parametrize(("num_features", "num_classes", "thousands"), [(7, 2, 348), (17, 10, 354)])
def test_the_network_is_as_large_as_published(
    num_features: int, num_classes: int, thousands: float
) -> None:
    net = published(num_features, num_classes)
    num_parameters = sum(p.numel() for p in net.parameters())
    assert num_parameters == pytest.approx(1000 * thousands, rel=2e-3)


def test_the_published_network_has_two_residual_units_a_stage_and_halves_twice() -> None:
    net = published(17, 10)
    assert [unit.stride for unit in net.units] == [1, 1, 2, 1, 2, 1]
    dims = [32, 64, 64, 64, 64, 128, 128]
    assert [unit.first.in_channels for unit in net.units] == dims[:-1]
    assert [unit.second.out_channels for unit in net.units] == dims[1:]
    lengths = []
    net.norm.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    net(torch.randn(1, 128, 17), torch.zeros(1, 128, 4), torch.ones(1, 128, dtype=torch.bool))
    assert lengths == [32]
