"""Ensembles of density ratios: what each member trains on, and what all of them say together."""

# B events, M members, C classes

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import poisson
from torch import Tensor, nn

from hepattn.data.events import EventBatch
from hepattn.data.hashing import spread_rows
from hepattn.nn.activation import ActivationName
from hepattn.nn.ensemble import EnsembleHead, EnsembleNetwork

MAX_COPIES = 20  # more happens to one event in 10^19


@dataclass(frozen=True)
class Ensemble:
    """Heads of one network that each learn the ratio for themselves.

    The heads begin with different weights and have losses of their own. What they disagree about,
    few events or an unknown normalisation decide.

    Args:
        num_members: Number of heads M.
        dim: Number of features that the network gives the heads.
        hidden: Units of each hidden layer of a head.
        activation: Of the features and of the hidden layers.
        dropout: Probability of dropping a hidden unit.
        layernorm: Whether hidden layers have a layer norm.
        poisson_bootstrap: Whether each member sees each training event a number of times of its
            own, drawn from a Poisson distribution of mean 1. The draw depends on the event, the
            member and the seed alone.
        mc_norm_sigma: For classes by name, such as that of a simulation, how uncertain the
            logarithm of their normalisation is. Each member scales their weights by a factor of
            its own, log-normal around 1.
        seed: Seed of these draws.

    Raises:
        ValueError: If a number is out of range.
    """

    num_members: int = 5
    dim: int = 64
    hidden: tuple[int, ...] = (64,)
    activation: ActivationName = "GELU"
    dropout: float = 0.0
    layernorm: bool = False
    poisson_bootstrap: bool = False
    mc_norm_sigma: dict[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_members < 2:
            raise ValueError(
                f"ensemble.num_members={self.num_members} must be at least 2; for one network set "
                "ensemble to null"
            )
        for name, sigma in self.mc_norm_sigma.items():
            if not 0 < sigma < math.inf:
                raise ValueError(f"ensemble.mc_norm_sigma of {name}={sigma} must be positive")

    def wrap(self, network: nn.Module) -> EnsembleNetwork:
        """Let the heads read what a network with ``dim`` outputs says."""
        options = (self.num_members, self.hidden, self.activation, self.dropout, self.layernorm)
        return EnsembleNetwork(network, EnsembleHead(self.dim, *options))

    def norms(self, classes: Sequence[str]) -> Tensor:
        """Factors on the weights of each class, for each member (C, M).

        Args:
            classes: Names of the classes.

        Raises:
            ValueError: If ``mc_norm_sigma`` names another one.
        """
        if unknown := sorted(set(self.mc_norm_sigma) - set(classes)):
            raise ValueError(
                f"ensemble.mc_norm_sigma names {unknown}, but the classes are {list(classes)}"
            )
        generator = torch.Generator().manual_seed(self.seed)
        normal = torch.randn(len(classes), self.num_members, generator=generator)
        sigma = torch.tensor([self.mc_norm_sigma.get(name, 0.0) for name in classes])
        return (sigma.unsqueeze(1) * normal).exp()

    def copies(self, batch: EventBatch) -> Tensor:
        """How many times each member sees each event (B, M)."""
        rows = batch.index.cpu().numpy()
        # Far from the small seeds that split events, with which copies would depend on the part.
        seeds = (((self.seed + 1) << 32) + member for member in range(self.num_members))
        places = np.stack([spread_rows(rows, seed) for seed in seeds], 1)  # (B, M)
        steps = poisson.cdf(np.arange(MAX_COPIES), 1.0)
        copies = np.searchsorted(steps, places, side="right")
        return torch.from_numpy(copies).to(batch.weight)


def mean_log_ratio(log_ratio: Tensor) -> Tensor:
    """Logarithm of the mean ratio of all members.

    Reweighting by it gives the mean of what the members give, in every bin.

    Args:
        log_ratio: Of each member (B, M).

    Returns:
        (B)
    """
    return log_ratio.logsumexp(1) - math.log(log_ratio.shape[1])


def relative_spread(log_ratio: Tensor) -> Tensor:
    """Standard deviation of the ratios of the members, over their mean.

    Args:
        log_ratio: Of each member (B, M), at least two.

    Returns:
        (B)
    """
    return (log_ratio - mean_log_ratio(log_ratio).unsqueeze(1)).exp().std(1)
