"""The particle flow network gives what its formula gives, particle by particle."""

import torch
from torch import nn
from torch.testing import assert_close

from hepattn.models.particle_flow import ParticleFlowNetwork
from hepattn.nn.normalise import Feature
from models.jet_network_cases import make, random_jets


def test_logits_are_those_of_a_loop_over_particles() -> None:
    net = make("particle_flow")
    x, vectors, valid = random_jets(7, 2, 0)
    out = net(x, vectors, valid)
    for jet in range(3):
        total = torch.zeros(16)
        for particle in x[jet][valid[jet]]:
            value = particle.clone()
            value[0] = ((value[0] - 1.7) * 0.7).clamp(-5, 5)
            total = total + layers(net.particles, value)
        assert_close(out[jet], net.head(layers(net.jet, total)))


def layers(network: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    linears = [part for part in network if isinstance(part, nn.Linear)]
    for linear in linears:
        x = (linear.weight @ x + linear.bias).clamp(min=0)
    return x


def test_the_published_network_has_three_layers_of_128_each() -> None:
    net = ParticleFlowNetwork([Feature(f"f{i}") for i in range(17)], 10)
    shapes = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
    assert shapes == [(128, 17), *[(128, 128)] * 5, (10, 128)]
