"""How the latent space is used, and whether what jets fill of it is the prior."""

# J jets, L latent dimensions

from typing import NamedTuple

import torch
from torch import Tensor

from hepattn.losses.vae import gaussian_kl

ACTIVE_VARIANCE = 0.01  # of the posterior means, as in arXiv:1509.00519


class LatentFigures(NamedTuple):
    """State of a latent space.

    Attributes:
        num_active: Dimensions whose posterior means vary from jet to jet.
        kl: Mean divergence of each dimension in nats (L).
        mean: Mean of the aggregate posterior (L).
        variance: Variance of the aggregate posterior (L).
    """

    num_active: int
    kl: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def mismatch(self) -> float:
        """Largest deviation of a mean from 0 or a variance from 1."""
        return float(torch.maximum(self.mean.abs(), (self.variance - 1).abs()).max())


def latent_figures(mean: Tensor, log_variance: Tensor) -> LatentFigures:
    """Measure the posteriors of many jets.

    Args:
        mean: Means (J, L).
        log_variance: Logarithms of the variances (J, L).
    """
    spread = mean.var(0, correction=0)
    return LatentFigures(
        int((spread > ACTIVE_VARIANCE).sum()),
        gaussian_kl(mean, log_variance).mean(0),
        mean.mean(0),
        spread + log_variance.exp().mean(0),
    )
