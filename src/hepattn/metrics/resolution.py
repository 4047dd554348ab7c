"""How precise estimates are: widths of residuals, and whether told uncertainties are right."""

# J events

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

ONE_SIGMA = 0.6827
"""Share of a normal distribution within one standard deviation."""
Array = NDArray[np.float64]


class Measured(NamedTuple):
    """A number and its uncertainty."""

    value: float
    error: float


def resolution(residual: ArrayLike) -> float:
    """Distance within which 68.3 % of the estimates are from the truth.

    Args:
        residual: Estimate minus truth (J), at least one.
    """
    return float(np.quantile(np.abs(np.asarray(residual, np.float64)), ONE_SIGMA))


def effective_width(residual: ArrayLike) -> float:
    """Half the width of the smallest interval that holds 68.3 % of the residuals.

    Args:
        residual: Estimate minus truth (J), at least one.
    """
    ordered = np.sort(np.asarray(residual, np.float64))
    inside = min(max(int(np.ceil(ONE_SIGMA * len(ordered))), 1), len(ordered))
    widths = ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]
    return float(widths.min() / 2)


def bootstrap(
    figure: Callable[[Array], float], residual: ArrayLike, num_draws: int = 200, seed: int = 0
) -> Measured:
    """A figure of some residuals and how it scatters when they are drawn again with replacement.

    Args:
        figure: From residuals to a number.
        residual: Estimate minus truth (J), at least one.
        num_draws: How often they are drawn.
        seed: Seed of the draws.
    """
    values = np.asarray(residual, np.float64)
    rng = np.random.default_rng(seed)
    drawn = [figure(rng.choice(values, len(values))) for _ in range(num_draws)]
    return Measured(figure(values), float(np.std(drawn)))


class ResidualFigures(NamedTuple):
    """What residuals tell.

    Attributes:
        num: How many there are.
        res68: `resolution`.
        sigma_eff: `effective_width`.
        bias: Mean.
        rms: Root of the mean square around the mean.
        skew: Third standardised moment.
        pull_width: Width of residuals over their told spreads, 1 if these are right; NaN without.
        coverage: Share of the residuals within one told spread, 0.683 if these are right.
        calibration: Mean told spread over the root mean square of the residuals.
    """

    num: int
    res68: Measured
    sigma_eff: Measured
    bias: Measured
    rms: float
    skew: float
    pull_width: float
    coverage: float
    calibration: float


class Residuals(Metric):
    """Collect estimates of one number and their truth.

    Several processes answer for all of their events together inside ``sync_context()``.
    """

    full_state_update = False
    estimate: list[Tensor]
    truth: list[Tensor]
    spread: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("estimate", "truth", "spread"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, estimate: Tensor, truth: Tensor, spread: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            estimate: Estimates (J).
            truth: What is true (J).
            spread: Their standard deviations as told (J), none by default.

        Raises:
            FloatingPointError: If an estimate is not finite.
        """
        if not estimate.isfinite().all():
            raise FloatingPointError(
                "the network's estimates are not finite; its training diverged"
            )
        spread = torch.full_like(estimate, torch.nan) if spread is None else spread
        self.estimate.append(estimate.detach().double())
        self.truth.append(truth.double())
        self.spread.append(spread.detach().double())

    def compute(self) -> float:
        """The resolution of all events."""
        return resolution(self.residual())

    def arrays(self) -> tuple[Array, Array, Array]:
        """Estimates, truth and told spreads of all events, each (J)."""
        parts = (self.estimate, self.truth, self.spread)
        estimate, truth, spread = (dim_zero_cat(part).cpu().numpy() for part in parts)
        return estimate, truth, spread

    def residual(self) -> Array:
        """Estimate minus truth of all events (J)."""
        estimate, truth, _ = self.arrays()
        return estimate - truth

    def figures(self, *, relative: bool = False) -> ResidualFigures:
        """What they tell.

        Args:
            relative: Whether residuals are shares of the truth.
        """
        estimate, truth, spread = self.arrays()
        scale = truth if relative else np.ones_like(truth)
        residual, spread = (estimate - truth) / scale, spread / scale
        return residual_figures(residual, spread)


def residual_figures(residual: ArrayLike, spread: ArrayLike | None = None) -> ResidualFigures:
    """Figures of residuals.

    Args:
        residual: Estimate minus truth (J), at least one.
        spread: Standard deviations as told (J); none by default.
    """
    residual = np.asarray(residual, np.float64)
    mean, rms = residual.mean(), residual.std()
    pull = residual / (np.full_like(residual, np.nan) if spread is None else spread)
    return ResidualFigures(
        len(residual),
        bootstrap(resolution, residual),
        bootstrap(effective_width, residual),
        Measured(float(mean), float(rms / np.sqrt(len(residual)))),
        float(rms),
        float(((residual - mean) ** 3).mean() / rms**3) if rms else 0.0,
        effective_width(pull) if np.isfinite(pull).all() else float("nan"),
        float((np.abs(pull) <= 1).mean()) if np.isfinite(pull).all() else float("nan"),
        float(np.mean(spread) / np.sqrt((residual**2).mean()))
        if spread is not None and rms
        else float("nan"),
    )
