"""Objectives of variational autoencoders of sets: the latent space, the counts, distributions."""

# B events, L latent dimensions, K categories, O observables

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hepattn.ops.sets import quantile_distance

CountLoss = Literal["categorical", "squared"]


@dataclass(frozen=True)
class FreeBits:
    """Information that a latent dimension may carry at no cost (arXiv:1606.04934).

    Args:
        nats: Free information λ of each dimension in nats.
        mode: ``floor``: max(λ, KL) of the batch's mean, so that a dimension below λ has no
            gradient; ``excess``: max(KL - λ, 0) of each event.

    Raises:
        ValueError: If λ is negative or the mode unknown.
    """

    nats: float = 0.1
    mode: Literal["floor", "excess"] = "floor"

    def __post_init__(self) -> None:
        if self.nats < 0:
            raise ValueError(f"nats={self.nats} must not be negative")
        if self.mode not in ("floor", "excess"):
            raise ValueError(f"mode={self.mode!r} must be 'floor' or 'excess'")


def soft_bound(x: Tensor, low: float, high: float) -> Tensor:
    """Squash numbers into an interval, nearly untouched in its middle, with gradients everywhere.

    Args:
        x: Numbers (...).
        low: Lower end.
        high: Upper end.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * torch.tanh((x - middle) / half)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of N(μ, σ²) from N(0, 1) in nats, ½ (μ² + σ² - ln σ² - 1), of each entry.

    Args:
        mean: Means μ (...).
        log_variance: Logarithms of the variances ln σ² (...).
    """
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)


def latent_loss(mean: Tensor, log_variance: Tensor, free: FreeBits | None = None) -> Tensor:
    """Sum the divergence over the latent dimensions and average over the events.

    Args:
        mean: Means of the posterior (B, L).
        log_variance: Logarithms of its variances (B, L).
        free: What dimensions may carry at no cost; nothing by default.

    Returns:
        A scalar in nats.
    """
    divergence = gaussian_kl(mean, log_variance)  # (B, L)
    if free is None:
        return divergence.sum(1).mean()
    if free.mode == "excess":
        return (divergence - free.nats).clamp(min=0).sum(1).mean()
    return divergence.mean(0).clamp(min=free.nats).sum()


def kl_weight(progress: float, warmup: float, maximum: float = 1.0) -> float:
    """Weight β of the divergence: it rises evenly to its maximum, min(1, t / T) β_max.

    Args:
        progress: Time t, in the unit of ``warmup``, such as epochs with their fractions.
        warmup: Duration T of the rise; 0 for none.
        maximum: Largest weight β_max.
    """
    return maximum * (1.0 if warmup <= 0 else min(1.0, max(0.0, progress / warmup)))


def temperature(epoch: float, initial: float, final: float, decay: float) -> float:
    """Temperature of relaxed choices, max(τ_final, τ_initial · decay^epoch).

    Args:
        epoch: Epochs so far.
        initial: Temperature at the start.
        final: Lowest temperature.
        decay: Factor of an epoch.
    """
    return max(final, initial * math.pow(decay, epoch))


def count_loss(logits: Tensor, count: Tensor, kind: CountLoss = "categorical") -> Tensor:
    """Compare a distribution of the number of particles with the number that there is.

    Args:
        logits: Scores of 1, 2, … K particles (B, K).
        count: True numbers, 1 to K (B).
        kind: Cross-entropy, or the squared error of the mean in units of K.

    Returns:
        A scalar.
    """
    if kind == "categorical":
        return F.cross_entropy(logits, count - 1)
    numbers = torch.arange(1, logits.shape[1] + 1, device=logits.device, dtype=logits.dtype)
    mean = (logits.softmax(1) * numbers).sum(1)
    return ((mean - count) / logits.shape[1]).square().mean()


def quantile_loss(
    found: Tensor,
    true: Tensor,
    found_weight: Tensor | None = None,
    true_weight: Tensor | None = None,
    power: int = 1,
) -> Tensor:
    """Wasserstein distance between the distributions of each observable in two samples.

    Args:
        found: Observables of the generated events (O, M).
        true: Observables of true events (O, N).
        found_weight: Weights of the generated events, (M) or (O, M); 1 by default.
        true_weight: Weights of true events, (N) or (O, N); 1 by default.
        power: 1 for the distance itself, 2 for the squared one, with a smaller gradient near truth.

    Returns:
        (O), zero at truth; also where one of the samples has no weight.
    """
    weights = []
    for sample, weight in ((found, found_weight), (true, true_weight)):
        weight = torch.ones_like(sample) if weight is None else weight.to(sample).expand_as(sample)
        weights.append(weight)
    totals = [weight.sum(-1, keepdim=True) for weight in weights]
    shares = [w / t.clamp(min=1e-12) for w, t in zip(weights, totals, strict=True)]
    distance = quantile_distance(found, true, *shares, power=power)
    present = ((totals[0] > 0) & (totals[1] > 0)).squeeze(-1)
    return torch.where(present, distance, torch.zeros_like(distance))


def sliced_loss(
    found: Tensor,
    true: Tensor,
    num_projections: int,
    generator: torch.Generator | None = None,
    power: int = 1,
) -> Tensor:
    """Average the Wasserstein distance over random combinations of the observables.

    Unlike ``quantile_loss`` it sees how observables go together. Give them on a common scale.

    Args:
        found: Observables of the generated events (O, M).
        true: Observables of true events (O, N).
        num_projections: Number of combinations.
        generator: Source of the combinations.
        power: 1 for the distance itself, 2 for the squared one.

    Returns:
        A scalar, zero at truth.
    """
    lines = torch.randn(num_projections, len(found), generator=generator).to(found)
    lines = lines / lines.norm(dim=1, keepdim=True)
    return quantile_loss(lines @ found, lines @ true, power=power).mean()


def weighted_squared_error(found: Tensor, true: Tensor, weights: Sequence[float]) -> Tensor:
    """Sum the mean squared error of columns with a weight each.

    Args:
        found: Predictions (B, C).
        true: Targets (B, C).
        weights: Weights of the columns (C).
    """
    return ((found - true).square().mean(0) * found.new_tensor(tuple(weights))).sum()


def energy_distance(found: Tensor, true: Tensor, is_unbiased: bool = False) -> Tensor:
    """Energy distance between samples of vectors, 2 E|x - y| - E|x - x'| - E|y - y'|.

    Args:
        found: Generated vectors (M, O).
        true: True ones (N, O).
        is_unbiased: Whether x and x' are always different members of their sample, which makes the
            mean over samples exact; else equal samples have a distance of zero.

    Returns:
        A scalar; zero where a sample has fewer than two vectors.
    """
    num_found, num_true = len(found), len(true)
    if min(num_found, num_true) < 2:
        return found.sum() * 0.0

    def mean_distance(a: Tensor, b: Tensor, pairs: int) -> Tensor:
        squared = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1)
        together = squared == 0  # where the gradient is not finite
        distance = squared.masked_fill(together, 1.0).sqrt().masked_fill(together, 0.0)
        return distance.sum() / pairs

    less = 1 if is_unbiased else 0
    return (
        2 * mean_distance(found, true, num_found * num_true)
        - mean_distance(found, found, num_found * (num_found - less))
        - mean_distance(true, true, num_true * (num_true - less))
    )
