"""The last layer of a regression, with or without a variance."""

# B events, D features, d targets

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Variance = Literal["none", "shared", "detached"]


class RegressionHead(nn.Module):
    """Linear maps to the mean of each target and to the logarithm of its variance.

    The variance may be told by features that it does not train (``detached``): then what the
    features are good for is decided by the mean alone, as a faithful loss wants it
    (arXiv:2212.09184). All variances start at one, which suits targets that are standardised.

    Args:
        dim: Number of features D.
        num_targets: Number of targets d.
        variance: ``none``, from the same features (``shared``), or from ``detached`` ones; the
            losses say which they need.

    Raises:
        ValueError: If ``variance`` is none of these.
    """

    def __init__(self, dim: int, num_targets: int, variance: Variance = "none") -> None:
        super().__init__()
        if variance not in get_args(Variance):
            raise ValueError(f"variance={variance!r} must be one of {get_args(Variance)}")
        self.mean = nn.Linear(dim, num_targets)
        self.detaches = variance == "detached"
        self.log_variance = None
        if variance != "none":
            self.log_variance = nn.Linear(dim, num_targets)
            nn.init.zeros_(self.log_variance.weight)
            nn.init.zeros_(self.log_variance.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (..., D) to means and, behind them, log-variances: (..., d) or (..., 2d)."""
        mean = self.mean(x)
        if self.log_variance is None:
            return mean
        log_variance = self.log_variance(x.detach() if self.detaches else x)
        return torch.cat([mean, log_variance], -1)
