"""The autoencoder: encoder, latent space, topology, decoder, jet head."""

# B jets, N particles, C types, L latent dimensions, R rows of kinematics

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.experiments.hypervae.batch import HypergraphBatch
from hepattn.experiments.hypervae.decoder import Decoder
from hepattn.experiments.hypervae.encoder import Encoder, Posterior
from hepattn.experiments.hypervae.hypergraph import Hypergraph
from hepattn.experiments.hypervae.jet_statistics import NUM_ROWS, JetStatistics
from hepattn.experiments.hypervae.topology import CategoricalTopology, Presence, Topology
from hepattn.physics.four_vector import rapidity, transverse_momentum
from hepattn.physics.reference_frame import jet_tetrad

NUM_KINEMATICS = 2  # ln pT and rapidity
MakeEncoder = Callable[[int, int], Encoder]
MakeDecoder = Callable[[int, int, int], Decoder]
MakeTopology = Callable[[int, int], Topology]


class JetFrame(NamedTuple):
    """What is known of jets before their particles.

    Attributes:
        references: The tetrad of each jet (B, 4, 4).
        conditions: Type as one of C, scaled ln pT, rapidity (B, C + 2).
        pt: Transverse momentum in GeV (B).
    """

    references: Tensor
    conditions: Tensor
    pt: Tensor


class Decoded(NamedTuple):
    """Decoded jets.

    Attributes:
        vectors: Four-vectors in GeV (B, N, 4).
        presence: Which places have a particle.
    """

    vectors: Tensor
    presence: Presence


class Outputs(NamedTuple):
    """What the autoencoder makes of a batch.

    If not all jets are encoded, all but ``generated`` is that of the first ones alone.

    Attributes:
        posterior: Distributions of the latent vectors.
        latent: Draws from them, with what is known of the jets (B, L + C + 2).
        reconstructed: The jets decoded from these draws.
        generated: Jets of the same types and kinematics decoded from draws of the prior.
        prior: These draws, with what is known of the jets (B, L + C + 2).
        jet: Scaled ln pT, η and ln mass that the jet head reads off the draws (B, 3).
    """

    posterior: Posterior
    latent: Tensor
    reconstructed: Decoded
    generated: Decoded
    prior: Tensor
    jet: Tensor


class HyperVAE(nn.Module):
    """A variational autoencoder of jets as hypergraphs, for given types and kinematics.

    Args:
        num_types: Number of jet types C.
        max_particles: Most particles of a jet N.
        encoder: Builds the encoder from the numbers of conditions and latent dimensions.
        decoder: Builds the decoder from these and the most particles of a jet.
        topology: Builds what says how many particles there are, from the features of a jet and the
            most particles.
        latent_dim: Number of latent dimensions L.
        jet_dim: Hidden features of the jet head.
        latent_noise: Standard deviation of noise that is added to latent vectors in training.
        encoded_share: Share of the jets of a training batch that are encoded and reconstructed; the
            others only lend their types and kinematics to generated jets.

    Raises:
        ValueError: If the share is not above 0 and at most 1.
    """

    energy_scale: Tensor

    def __init__(
        self,
        num_types: int,
        max_particles: int,
        encoder: MakeEncoder = Encoder,
        decoder: MakeDecoder = Decoder,
        topology: MakeTopology = CategoricalTopology,
        latent_dim: int = 32,
        jet_dim: int = 64,
        latent_noise: float = 0.01,
        encoded_share: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < encoded_share <= 1:
            raise ValueError(f"encoded_share={encoded_share} must be above 0 and at most 1")
        self.encoded_share = encoded_share
        self.num_types, self.max_particles = num_types, max_particles
        self.latent_dim, self.latent_noise = latent_dim, latent_noise
        num_conditions = num_types + NUM_KINEMATICS
        self.encoder = encoder(num_conditions, latent_dim)
        self.decoder = decoder(num_conditions, latent_dim, max_particles)
        self.topology = topology(latent_dim + num_conditions, max_particles)
        self.jet_head = nn.Sequential(
            nn.Linear(latent_dim + num_conditions, jet_dim), nn.GELU(), nn.Linear(jet_dim, 3)
        )
        for name, value in JetStatistics.empty(num_types, max_particles)._asdict().items():
            self.register_buffer(name, value)
        self.register_buffer("is_fitted", torch.tensor(False))

    def fit(self, statistics: JetStatistics) -> None:
        """Take over what the training jets decide: scales, kinematics, where pT starts."""
        for name, value in statistics._asdict().items():
            getattr(self, name).copy_(value)
        self.decoder.log_share.copy_(statistics.log_share)
        self.is_fitted.fill_(True)

    def frame_of(self, jet: Tensor, label: Tensor) -> JetFrame:
        """Give the frame of jets of known sum.

        Args:
            jet: Four-vectors in GeV (B, 4).
            label: Numbers of the types (B).
        """
        pt = transverse_momentum(jet).clamp(min=1e-3)
        one_hot = nn.functional.one_hot(label, self.num_types).to(jet.dtype)
        scaled = (pt.log() - self.jet_mean[0]) / self.jet_scale[0]
        conditions = torch.cat([one_hot, torch.stack([scaled, rapidity(jet)], -1)], -1)
        return JetFrame(jet_tetrad(jet), conditions, pt)

    def scale_graph(self, graph: Hypergraph) -> Hypergraph:
        """Give edges and hyperedges a mean of 0 and a variance of 1; padding stays 0."""
        edges = (graph.edges - self.edge_mean) / self.edge_scale
        hyperedges = (graph.hyperedges - self.hyperedge_mean) / self.hyperedge_scale
        return graph._replace(
            edges=edges.masked_fill(~graph.edge_valid.unsqueeze(-1), 0.0),
            hyperedges=hyperedges.masked_fill(~graph.hyperedge_valid.unsqueeze(-1), 0.0),
        )

    def scale_jet(self, jet: Tensor) -> Tensor:
        """Scale pT in GeV, η and mass in GeV of jets (B, 3) to ln pT, η and ln m of variance 1."""
        pt, eta, mass = jet.unbind(-1)
        columns = torch.stack([pt.clamp(min=1e-3).log(), eta, mass.clamp(min=1e-1).log()], -1)
        return (columns - self.jet_mean) / self.jet_scale

    def encode(
        self, vectors: Tensor, valid: Tensor, graph: Hypergraph, frame: JetFrame
    ) -> Posterior:
        """Encode jets (B, N, 4) in GeV; arguments as in ``Encoder.forward``, unscaled."""
        return self.encoder(
            vectors / self.energy_scale,
            valid,
            self.scale_graph(graph),
            frame.references,
            frame.conditions,
        )

    def draw(self, posterior: Posterior) -> Tensor:
        """Draw latent vectors (B, L) from their posterior, with some more noise in training."""
        mean, log_variance = posterior
        latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        if self.training and self.latent_noise:
            latent = latent + self.latent_noise * torch.randn_like(latent)
        return latent

    def decode(
        self, latent: Tensor, frame: JetFrame, presence: Presence, noise: Tensor | None = None
    ) -> Decoded:
        """Decode latent vectors into particles.

        Args:
            latent: Latent vectors (B, L).
            frame: What is known of the jets.
            presence: Which places have a particle.
            noise: What makes particles differ beside it (B, N, K); drawn by default.
        """
        if noise is None:
            noise = self.decoder.draw(presence.valid, latent.dtype)
        vectors = self.decoder(
            latent, frame.conditions, presence.valid, frame.references, frame.pt, noise
        )
        return Decoded(vectors, presence)

    def sample(self, frame: JetFrame) -> tuple[Decoded, Tensor]:
        """Decode draws from the prior for jets of known frame.

        Returns:
            The jets, and the draws with what is known of them (B, L + C + 2).
        """
        latent = torch.randn(len(frame.pt), self.latent_dim, device=frame.pt.device)
        latent = latent.to(frame.pt.dtype)
        known = torch.cat([latent, frame.conditions], -1)
        presence = self.topology.choose(known, self.topology.draw(known))
        return self.decode(latent, frame, presence), known

    def forward(self, batch: HypergraphBatch, epoch: float = 0.0) -> Outputs:
        """Encode and decode a batch, and generate jets beside it.

        Args:
            batch: The jets.
            epoch: Epochs so far, for schedules.
        """
        frame = self.frame_of(batch.vectors.sum(1), batch.label)
        generated, prior = self.sample(frame)
        if self.training and self.encoded_share < 1:
            num = max(1, round(self.encoded_share * len(batch.label)))
            batch, frame = batch.first(num), JetFrame(*(x[:num] for x in frame))
        posterior = self.encode(batch.vectors, batch.valid, batch.graph, frame)
        latent = self.draw(posterior)
        known = torch.cat([latent, frame.conditions], -1)  # (B, L + C + 2)
        presence = self.topology.train_presence(known, batch.valid.sum(1), epoch)
        decoded = self.decode(latent, frame, presence)
        return Outputs(posterior, known, decoded, generated, prior, self.jet_head(known))

    @torch.no_grad()
    def generate(self, label: Tensor) -> Decoded:
        """Generate jets of given types, with kinematics drawn from those of the training jets.

        Args:
            label: Numbers of the types (B).
        """
        row = torch.randint(NUM_ROWS, label.shape, device=label.device)
        log_pt, y = self.kinematics[label, row].unbind(-1)  # (B)
        return self.sample(self.frame_of(jet_along_x(log_pt.exp(), y), label))[0]


def jet_along_x(pt: Tensor, y: Tensor) -> Tensor:
    """Give massless jets (B, 4) in GeV of pT in GeV and rapidity, both (B), at azimuth 0."""
    return torch.stack([pt * y.cosh(), pt, torch.zeros_like(pt), pt * y.sinh()], -1)
