"""How many particles a jet has: by a distribution of their number, or place by place."""

# B jets, N places, L latent dimensions

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.losses.vae import CountLoss, count_loss, temperature


@dataclass(frozen=True)
class Temperature:
    """The temperature of relaxed choices, max(final, initial · decay^epoch).

    Args:
        initial: Temperature at the start.
        final: Lowest temperature.
        decay: Factor of an epoch.
    """

    initial: float = 5.0
    final: float = 0.5
    decay: float = 0.98

    def at(self, epoch: float) -> float:
        """Temperature after so many epochs."""
        return temperature(epoch, self.initial, self.final, self.decay)


class Presence(NamedTuple):
    """Which places have a particle.

    Attributes:
        valid: True for a particle (B, N).
        weight: How much it is there, 1 or, with gradients, near it (B, N).
    """

    valid: Tensor
    weight: Tensor


class CategoricalTopology(nn.Module):
    """A distribution over the number of particles; the first places have them.

    Args:
        dim_in: Features of a jet: latent vector and what is known of it.
        num_slots: Most particles N.
        dim: Hidden features.
        loss: ``categorical`` cross-entropy, or the ``squared`` error of the mean.
    """

    draws_from = "exponential"

    def __init__(
        self, dim_in: int, num_slots: int, dim: int = 64, loss: CountLoss = "categorical"
    ) -> None:
        super().__init__()
        self.kind = loss
        self.num_slots = num_slots
        self.net = nn.Sequential(nn.Linear(dim_in, dim), nn.GELU(), nn.Linear(dim, num_slots))

    def train_presence(self, jet: Tensor, count: Tensor, epoch: float) -> Presence:
        """Places of a training jet: as many as are true; arguments as in ``losses``."""
        return presence(count, self.num_slots, jet.dtype)

    def losses(self, jet: Tensor, count: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Compare with the true numbers.

        Args:
            jet: Features of the jets (B, dim_in).
            count: True numbers of particles, at least 1 (B).
            weight: How much each place was there (B, N).
        """
        return {"count": count_loss(self.net(jet), count, self.kind)}

    def distribution(self, jet: Tensor) -> Tensor:
        """Mean probabilities of 1, 2, … N particles over jets (B, dim_in), as (N)."""
        return self.net(jet).softmax(-1).mean(0)

    def draw(self, jet: Tensor) -> Tensor:
        """Random numbers (B, N) with which `choose` chooses, for as many jets as (B, ...) has."""
        return jet.new_empty(len(jet), self.num_slots).exponential_()

    @torch.no_grad()
    def choose(self, jet: Tensor, draws: Tensor) -> Presence:
        """Choose the numbers of particles, as ``torch.multinomial`` does with the same draws.

        Of exponential waiting times with rates p_1, p_2, … the n-th is the shortest with
        probability p_n. Unlike that operator this one can be exported.

        Args:
            jet: Features of the jets (B, dim_in).
            draws: Independent draws from the exponential distribution of mean 1 (B, N).
        """
        count = (self.net(jet).softmax(-1) / draws).argmax(1) + 1
        return presence(count, self.num_slots, jet.dtype)


class ConcreteTopology(nn.Module):
    """An independent choice for each place, relaxed in training (arXiv:1611.00712).

    The choice is hard, and its gradient that of a sigmoid at a temperature. Unlike a softmax over
    the places, whose weights add up to one particle, any number of places can be chosen. Binary
    cross-entropy teaches that the first n places have particles, and the squared error of the
    number how many in all.

    Args:
        dim_in: Features of a jet: latent vector and what is known of it.
        num_slots: Most particles N.
        dim: Hidden features.
        schedule: Temperature of the choices.
    """

    draws_from = "uniform"

    def __init__(
        self,
        dim_in: int,
        num_slots: int,
        dim: int = 64,
        schedule: Temperature = Temperature(),
    ) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.schedule = schedule
        self.net = nn.Sequential(nn.Linear(dim_in, dim), nn.GELU(), nn.Linear(dim, num_slots))

    def train_presence(self, jet: Tensor, count: Tensor, epoch: float) -> Presence:
        """Choose places with gradients; a jet of which none is chosen keeps its first one."""
        logits = self.net(jet)
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        noise = uniform.log() - (-uniform).log1p()
        soft = torch.sigmoid((logits + noise) / self.schedule.at(epoch))
        return _harden(soft)

    def losses(self, jet: Tensor, count: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Compare with the true numbers; arguments as in ``CategoricalTopology.losses``."""
        true = presence(count, self.num_slots, jet.dtype).weight
        cross_entropy = F.binary_cross_entropy_with_logits(self.net(jet), true)
        number = (weight.sum(1) - count).div(self.num_slots).square().mean()
        return {"presence": cross_entropy, "count": number}

    def distribution(self, jet: Tensor) -> Tensor:
        """Mean probabilities of 1, 2, … N particles over jets (B, dim_in), as (N)."""
        probability = self.net(jet).sigmoid()  # (B, N)
        numbers = torch.zeros_like(torch.cat([probability, probability[:, :1]], 1))
        numbers[:, 0] = 1.0
        for place in probability.unbind(1):  # one place after the other may add a particle
            more = numbers.roll(1, 1)  # the last entry is 0 until the last place
            numbers = numbers * (1 - place.unsqueeze(1)) + more * place.unsqueeze(1)
        # A jet of which no place is chosen keeps its first one.
        return torch.cat([numbers[:, :1] + numbers[:, 1:2], numbers[:, 2:]], 1).mean(0)

    def draw(self, jet: Tensor) -> Tensor:
        """Random numbers (B, N) with which `choose` chooses, for as many jets as (B, ...) has."""
        return torch.rand(len(jet), self.num_slots, dtype=jet.dtype, device=jet.device)

    @torch.no_grad()
    def choose(self, jet: Tensor, draws: Tensor) -> Presence:
        """Choose places of jets, each with its own probability.

        Args:
            jet: Features of the jets (B, dim_in).
            draws: Independent draws from the uniform distribution in [0, 1) (B, N).
        """
        return _harden((draws < self.net(jet).sigmoid()).to(jet.dtype))


def presence(count: Tensor, num_slots: int, dtype: torch.dtype) -> Presence:
    """Let the first places have particles, as many as ``count`` (B) says."""
    valid = torch.arange(num_slots, device=count.device) < count.unsqueeze(1)
    return Presence(valid, valid.to(dtype))


def _harden(soft: Tensor) -> Presence:
    hard = (soft > 0.5).to(soft.dtype)
    hard[:, 0] = torch.where(hard.any(1), hard[:, 0], 1.0)
    return Presence(hard > 0.5, hard + soft - soft.detach())


Topology = CategoricalTopology | ConcreteTopology
