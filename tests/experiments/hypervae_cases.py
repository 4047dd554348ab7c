"""Small jets and networks for the tests of hypervae."""

from functools import partial

import torch
from torch import Tensor

from hepattn.experiments.hypervae.batch import HypergraphBatch, make_batch
from hepattn.experiments.hypervae.decoder import Decoder
from hepattn.experiments.hypervae.encoder import Encoder
from hepattn.experiments.hypervae.hypergraph import HypergraphOptions
from hepattn.experiments.hypervae.jet_statistics import JetStatistics
from hepattn.experiments.hypervae.model import HyperVAE
from hepattn.experiments.hypervae.topology import CategoricalTopology, ConcreteTopology
from hepattn.nn.lorentz import Full, Slim
from hepattn.physics.jet_shape import from_relative

OPTIONS = HypergraphOptions(num_edge_particles=5, num_hyperedge_particles=4, orders=(3, 4))
NUM_SLOTS = 8
NETWORKS = {
    "slim": partial(Slim, num_vectors=4, num_scalars=8, num_heads=2),
    "full": partial(Full, num_multivectors=4, num_scalars=8, num_heads=2),
}
TOPOLOGIES = {"categorical": CategoricalTopology, "concrete": ConcreteTopology}


def draw_vectors(lengths: list[int], num_slots: int = NUM_SLOTS) -> tuple[Tensor, Tensor]:
    """Jets of 300 to 700 GeV, particles by falling pT."""
    B = len(lengths)
    valid = torch.arange(num_slots) < torch.tensor(lengths)[:, None]
    pt = torch.rand(B, num_slots).square().add(0.01).masked_fill(~valid, 0.0)
    pt = (pt / pt.sum(1, keepdim=True).clamp(min=1e-9)).sort(1, descending=True).values
    eta, phi = 0.2 * torch.randn(2, B, num_slots)
    jet_pt, jet_eta = 300 + 400 * torch.rand(B), torch.randn(B)
    return from_relative(eta, phi, pt, jet_pt, jet_eta, torch.zeros(B)), valid


def draw_batch(
    lengths: tuple[int, ...] = (8, 5, 3, 8, 6, 1), dtype: torch.dtype = torch.float32
) -> HypergraphBatch:
    vectors, valid = draw_vectors(list(lengths))
    B = len(lengths)
    label = torch.arange(B) % 3
    return make_batch(vectors.to(dtype), valid, label, torch.ones(B), torch.arange(B), OPTIONS)


def make_net(
    network: str = "slim", topology: str = "categorical", dtype: torch.dtype = torch.float32
) -> HyperVAE:
    torch.manual_seed(0)
    net = HyperVAE(
        3,
        NUM_SLOTS,
        partial(Encoder, network=NETWORKS[network], particle_dim=8, edge_dim=8, hyperedge_dim=8),
        partial(Decoder, network=NETWORKS[network], dim=8),
        partial(TOPOLOGIES[topology], dim=8),
        latent_dim=4,
    )
    net.fit(JetStatistics.of(draw_batch((8, 6, 7, 8, 4, 5, 8, 7)), 3))
    return net.to(dtype)
