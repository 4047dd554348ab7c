"""From a latent vector and what is known of a jet to its particles."""

# B jets, N particles, L latent dimensions, D features, K noise

import torch
from torch import Tensor, nn

from hepattn.experiments.hypervae.residual_mlp import ResidualMLP
from hepattn.nn.lorentz import LorentzNetwork, Slim, with_references
from hepattn.physics.reference_frame import project_to_shell

MAX_LOG_SHARE = 3.0  # ln of pT over that of a typical particle at this place


class Decoder(nn.Module):
    """Particles as vectors of a Lorentz network, which sees the references of the jet.

    A particle's momentum is exp(s) (x + v), with the direction x of the jet among the references,
    a vector v and a scalar s of the network, s on top of a learned start for each place in the
    order of pT. It is then shifted along time onto the mass shell. So particles are massless, have
    positive energy, and are covariant in the references. Latent vectors are scalars: boosts do not
    change them.

    Args:
        num_conditions: Numbers that are known of a jet.
        latent_dim: Number of latent dimensions L.
        num_slots: Most particles of a jet N.
        network: Builds the network of the particles.
        dim: Features D of each place.
        num_layers: Layers of the dense nets, of the jet and of each place, before the network.
        num_noise: Random numbers K of each particle, for what the latent vector does not hold.
        feature_dropout: Probability of dropping a feature before the network.
    """

    log_share: Tensor

    def __init__(
        self,
        num_conditions: int,
        latent_dim: int,
        num_slots: int,
        network: LorentzNetwork = Slim,
        dim: int = 64,
        num_layers: int = 2,
        num_noise: int = 4,
        feature_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_noise = num_noise
        self.embed = nn.Sequential(
            ResidualMLP(latent_dim + num_conditions + 1, 2 * dim, num_layers),
            nn.Linear(2 * dim, dim),
        )
        self.mix = ResidualMLP(dim, dim, num_layers)
        self.place = nn.Parameter(0.5 * torch.randn(num_slots, dim))
        self.noise = nn.Linear(num_noise, dim, bias=False)
        self.dropout = nn.Dropout(feature_dropout)
        self.network = network(4, dim, 1, 1)
        # ln of pT / jet pT at each place; the data decides where it starts.
        self.register_buffer("log_share", torch.linspace(-1.5, -6.0, num_slots))

    def draw(self, valid: Tensor, dtype: torch.dtype) -> Tensor:
        """Noise (B, N, K) for the particles of jets (B, N)."""
        return torch.randn(*valid.shape, self.num_noise, device=valid.device, dtype=dtype)

    def forward(
        self,
        latent: Tensor,
        conditions: Tensor,
        valid: Tensor,
        references: Tensor,
        energy: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Decode jets.

        Args:
            latent: Latent vectors (B, L).
            conditions: What is known of each jet (B, conditions).
            valid: Which places have a particle (B, N).
            references: The tetrad of each jet (B, 4, 4): time, the jet's direction, two more.
            energy: Transverse momentum of each jet in GeV (B).
            noise: Independent draws from the normal distribution (B, N, K).

        Returns:
            Massless four-vectors in GeV (B, N, 4); zero where there is no particle.
        """
        B, N = valid.shape
        count = valid.sum(1, keepdim=True) / N  # (B, 1)
        hidden = self.embed(torch.cat([latent, conditions, count.to(latent)], -1))  # (B, D)
        scalars = hidden.unsqueeze(1) + self.place[:N]  # (B, N, D)
        scalars = self.dropout(self.mix(scalars + self.noise(noise)))
        inputs = with_references(scalars.new_zeros(B, N, 0, 4), references)  # (B, N, 4, 4)
        shift, size = self.network(inputs, scalars, valid)  # (B, N, 1, 4), (B, N, 1)
        bounded = MAX_LOG_SHARE * torch.tanh(size.squeeze(-1) / MAX_LOG_SHARE)  # (B, N)
        scale = (self.log_share[:N] + bounded).exp() * energy.unsqueeze(-1)
        momentum = scale.unsqueeze(-1) * (references[:, None, 1] + shift.squeeze(2))
        particles = project_to_shell(momentum, references[:, None, 0])
        return particles.masked_fill(~valid.unsqueeze(-1), 0.0)
