"""The part of the autoencoder that generates jets, as a function without randomness of its own."""

# B jets, N particles, L latent dimensions, K noise

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.experiments.hypervae.batch import HypergraphBatch
from hepattn.experiments.hypervae.model import HyperVAE, jet_along_x
from hepattn.physics.four_vector import rapidity, transverse_momentum


class GeneratedJets(NamedTuple):
    """Jets of a generator.

    Attributes:
        vectors: Massless four-vectors in GeV (B, N, 4); zero where there is no particle.
        valid: True for particles (B, N).
    """

    vectors: Tensor
    valid: Tensor


class Generator(nn.Module):
    """Map types, kinematics and random numbers to jets, as ``HyperVAE.generate`` does.

    Args:
        net: The trained autoencoder, of which decoder and topology are used.
    """

    def __init__(self, net: HyperVAE) -> None:
        super().__init__()
        self.net = net

    def input_names(self) -> tuple[str, ...]:
        """Names of the arguments; draws are called by the distribution that they come from."""
        return "label", "pt", "rapidity", "latent", self.net.topology.draws_from, "noise"

    def forward(
        self,
        label: Tensor,
        pt: Tensor,
        rapidity: Tensor,
        latent: Tensor,
        draws: Tensor,
        noise: Tensor,
    ) -> GeneratedJets:
        """Generate jets at azimuth 0.

        Args:
            label: Numbers of the types (B).
            pt: Transverse momenta in GeV (B).
            rapidity: Rapidities (B).
            latent: Latent vectors (B, L), independent draws from the normal distribution.
            draws: Draws that tell which places have a particle (B, N), from the exponential
                distribution of mean 1 for ``CategoricalTopology`` and from the uniform one in
                [0, 1) for ``ConcreteTopology``.
            noise: Noise of each particle (B, N, K), from the normal distribution.
        """
        frame = self.net.frame_of(jet_along_x(pt, rapidity), label)
        presence = self.net.topology.choose(torch.cat([latent, frame.conditions], -1), draws)
        vectors = self.net.decode(latent, frame, presence, noise).vectors
        return GeneratedJets(vectors, presence.valid)

    @torch.no_grad()
    def inputs_like(self, batch: HypergraphBatch) -> tuple[Tensor, ...]:
        """Arguments for jets of the types and kinematics of a batch; equal ones for equal jets."""
        jet = batch.vectors.sum(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(batch.index[0]))
            latent = torch.randn(len(jet), self.net.latent_dim)
            draws = self.net.topology.draw(latent)
            noise = self.net.decoder.draw(draws, latent.dtype)
        return batch.label, transverse_momentum(jet), rapidity(jet), latent, draws, noise
