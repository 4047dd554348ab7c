"""Losses whose lowest point is the ratio of two densities, known by samples of both alone.

Events of label 1 are the numerator, those of label 0 the denominator. Each loss gives the output f
of an event one cost in the numerator and another in the denominator; where the densities are in
the ratio r, the mean cost is lowest for the output whose ``log_ratio(f)`` is log r. See
arXiv:2305.10500 for losses of probabilities in physics, and Sugiyama et al., Ann. Inst. Stat. Math.
64 (2012) 1009 for losses of the ratio itself, which are Bregman divergences.
"""

# B events

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hepattn.losses.event import EventLoss, Normalise, require_two_classes


class DensityRatioLoss(EventLoss):
    """Average the costs of numerator and denominator; a subclass says what they are.

    Args:
        w_lambda: Strength of the mean of ``log_ratio(f)²``, which pulls all ratios towards one.
        ess_lambda: Strength of one over the effective sample size ``(Σr)² / Σr²`` of the batch.
        numerator_share: Share c of the numerator, by which its weights are divided, and those of
            the denominator by 1 - c; the ratio is then one of densities, not of yields. Weights
            as they are by default.
        normalise: As in `EventLoss`.
        allow_negative_weights: As in `EventLoss`.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        w_lambda: float = 0.0,
        ess_lambda: float = 0.0,
        numerator_share: float | None = None,
        normalise: Normalise = "weights",
        allow_negative_weights: bool = False,
    ) -> None:
        super().__init__(normalise, allow_negative_weights)
        for name, strength in (("w_lambda", w_lambda), ("ess_lambda", ess_lambda)):
            if not 0 <= strength < math.inf:
                raise ValueError(f"{name}={strength} must be finite and not negative")
        if numerator_share is not None and not 0 < numerator_share < 1:
            raise ValueError(f"numerator_share={numerator_share} must lie between 0 and 1")
        self.w_lambda = w_lambda
        self.ess_lambda = ess_lambda
        self.numerator_share = numerator_share

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what outputs cost in an event of the numerator, and of the denominator.

        Args:
            f: Outputs of any shape, in float32 or more.

        Returns:
            Two tensors of the shape of ``f``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define costs(f)")

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the natural logarithm of the ratio that outputs stand for.

        Args:
            f: Outputs of any shape.

        Returns:
            A tensor of the shape of ``f``, finite for finite outputs.
        """
        raise NotImplementedError(f"{type(self).__name__} must define log_ratio(f)")

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the cost of each event, whose output (B) is ``logit``."""
        require_two_classes(label, self)
        numerator, denominator = self.costs(logit)
        return torch.where(label == 1, numerator, denominator)

    def forward(self, f: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            f: Outputs (B).
            label: 1 for the numerator, 0 for the denominator, -1 for neither (B).
            weight: Weight of each event, of either sign (B).

        Returns:
            A scalar; zero, with gradients of zero, where all weights are.

        Raises:
            ValueError: If ``f`` has another dimension, a label is above 1, or a weight is negative
                in training and the loss neither bounded below nor told to take it.
        """
        if f.ndim != 1:
            raise ValueError(f"f has shape {tuple(f.shape)}, but must have one output an event (B)")
        counts = (label >= 0) & (weight != 0)
        if self.numerator_share is not None:
            share = self.numerator_share
            weight = weight / torch.where(label == 1, share, 1 - share)
        loss = super().forward(f, label, weight)
        if self.w_lambda or self.ess_lambda:
            loss = loss + self._regulariser(f.masked_fill(~counts, 0), counts)
        return loss

    def _regulariser(self, f: Tensor, counts: Tensor) -> Tensor:
        """What keeps ratios near one and alike, each event that counts alike."""
        log_ratio = self.log_ratio(f)
        size = (log_ratio.square() * counts).sum() / counts.sum().clamp(min=1)
        known = log_ratio.masked_fill(~counts & ~self.skipped, -math.inf)
        one_over_ess = (torch.logsumexp(2 * known, 0) - 2 * torch.logsumexp(known, 0)).exp()
        return (self.w_lambda * size + self.ess_lambda * one_over_ess).masked_fill(self.skipped, 0)


class Logistic(DensityRatioLoss):
    """Binary cross-entropy: log(1 + e⁻ᶠ) and log(1 + eᶠ), with log r = f."""

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        return F.softplus(-f), F.softplus(f)

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return _single(f)


class Exponential(DensityRatioLoss):
    """Exponential loss: e⁻ᶠ and eᶠ, with log r = 2f; costs go on as straight lines from e¹⁰."""

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        return _exponential(-f), _exponential(f)

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return 2 * _single(f)


class Savage(DensityRatioLoss):
    """Savage loss: (1 + eᶠ)⁻² and (1 + e⁻ᶠ)⁻², with log r = f; costs are in [0, 1]."""

    bounded_below = True

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        return (-f).sigmoid().square(), f.sigmoid().square()

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return _single(f)


class Tangent(DensityRatioLoss):
    """Tangent loss: (2 atan f - 1)² and (2 atan f + 1)², with r = p/(1 - p), p = atan f + 1/2.

    Costs are below (π + 1)²; p is cut to [10⁻⁶, 1 - 10⁻⁶] in the ratio.
    """

    bounded_below = True

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        angle = 2 * f.atan()
        return (angle - 1).square(), (angle + 1).square()

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return _log_odds(_single(f).atan() + 0.5)


class SquaredError(DensityRatioLoss):
    """Squared distance to 1 and to 0: (1 - f)² and f², with r = f/(1 - f).

    In the ratio f is cut as p in `Tangent`.
    """

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        return (1 - f).square(), f.square()

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return _log_odds(_single(f))


class Square(DensityRatioLoss):
    """Squared distance to 1 and to -1: (1 - f)² and (1 + f)², with r = p/(1 - p), p = (f + 1)/2.

    In the ratio p is cut as in `Tangent`.
    """

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        return (1 - f).square(), (1 + f).square()

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return _log_odds((_single(f) + 1) / 2)


class PositiveRatioLoss(DensityRatioLoss):
    """What losses of the ratio itself share: r = log(1 + eᶠ), which is positive."""

    def log_ratio(self, f: Tensor) -> Tensor:
        """Compute the logarithm of the ratio; see `DensityRatioLoss.log_ratio`."""
        return _log_softplus(_single(f))


class LSIF(PositiveRatioLoss):
    """Least-squares importance fitting: -r and r²/2, with r = log(1 + eᶠ)."""

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        ratio = F.softplus(f)
        return -ratio, ratio.square() / 2


class KLIEP(PositiveRatioLoss):
    """Kullback-Leibler importance estimation: -log r and r, with r = log(1 + eᶠ)."""

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        return -_log_softplus(f), F.softplus(f)


class Bregman(PositiveRatioLoss):
    """Bregman divergence of e²ʳ/4: -e²ʳ/2 and e²ʳ (2r - 1)/4, with r = log(1 + eᶠ).

    From r = 1/2 on its curvature e²ʳ falls as 1/r, as that of `KLIEP`, or the few events of a high
    ratio would outweigh all others. A divergence of any positive curvature has its lowest point at
    the true ratio.
    """

    def costs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both costs; see `DensityRatioLoss.costs`."""
        turn, ratio = 0.5, F.softplus(f)
        low, factor = ratio.clamp(max=turn), turn * math.exp(2 * turn)
        slope, above = (2 * low).exp(), F.relu(_log_softplus(f) - math.log(turn))  # log(r / turn)
        numerator = -slope / 2 - factor * above
        denominator = slope * (2 * low - 1) / 4 + factor * (ratio - low)
        return numerator, denominator


def _single(f: Tensor) -> Tensor:
    return f.to(torch.promote_types(f.dtype, torch.float32))


def _exponential(x: Tensor) -> Tensor:
    """Exponential function, continued by its tangent from 10 on."""
    return x.clamp(max=10.0).exp() * (1 + F.relu(x - 10.0))


def _log_odds(p: Tensor) -> Tensor:
    p = p.clamp(1e-6, 1 - 1e-6)
    return p.log() - (-p).log1p()


def _log_softplus(f: Tensor) -> Tensor:
    """Logarithm of log(1 + eᶠ), by its first two terms where that underflows."""
    low = f.clamp(max=-10.0)
    return torch.where(f < -10.0, low - low.exp() / 2, F.softplus(f.clamp(min=-10.0)).log())
