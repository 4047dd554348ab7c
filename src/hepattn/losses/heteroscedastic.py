"""Losses for numbers with an uncertainty that depends on the event.

Log-variances are bounded. Within the range they and their gradients are what they are. Outside, the
nearest end counts, and the gradient there: what leads back into the range passes, what leads
further out is stopped, so that an output can neither run away nor get stuck.
"""

# B events, d targets

from typing import Any

import torch
from torch import Tensor

from hepattn.losses.regression import TargetLoss


class HeteroscedasticLoss(TargetLoss):
    """What losses with a variance share.

    Args:
        min_log_variance: Lowest log-variance that counts; standard deviations of 0.0009 by default.
        max_log_variance: Highest one; standard deviations of 1100 by default.

    Raises:
        ValueError: If the lowest is not below the highest.
    """

    variance = "shared"

    def __init__(self, min_log_variance: float = -14.0, max_log_variance: float = 14.0) -> None:
        super().__init__()
        if min_log_variance >= max_log_variance:
            raise ValueError(
                f"min_log_variance={min_log_variance} must be below "
                f"max_log_variance={max_log_variance}"
            )
        self.min_log_variance = min_log_variance
        self.max_log_variance = max_log_variance

    def bound(self, log_variance: Tensor) -> Tensor:
        """Bound log-variances of any shape, with gradients that lead back into the range."""
        return _Bound.apply(log_variance, self.min_log_variance, self.max_log_variance)

    def standard_deviation(self, output: Tensor) -> Tensor:
        """The standard deviations (..., d) that outputs (..., 2d) tell."""
        return (self.bound(self.split(output)[1]) / 2).exp()


class GaussianNLL(HeteroscedasticLoss):
    """Negative log-likelihood of a normal distribution, without its constant, and beta-NLL.

    ``(log s² + (y - mean)² / s²) / 2``, averaged over the targets. Events with a large variance
    count little for the mean, and a network may leave them at that. With ``beta`` each term is
    multiplied by its variance to this power, of which no gradient is taken (arXiv:2203.09168): 1
    gives the mean the gradients of half the squared error, 0.5 is recommended there.

    Args:
        beta: Power of the variance; 0 for the plain likelihood.
        min_log_variance: As in `HeteroscedasticLoss`.
        max_log_variance: As in `HeteroscedasticLoss`.

    Raises:
        ValueError: If ``beta`` is not in [0, 1].
    """

    def __init__(
        self, beta: float = 0.0, min_log_variance: float = -14.0, max_log_variance: float = 14.0
    ) -> None:
        super().__init__(min_log_variance, max_log_variance)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta={beta} must be in [0, 1]")
        self.beta = beta

    def per_event(self, mean: Tensor, target: Tensor, log_variance: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `TargetLoss.per_event`."""
        log_variance = self.bound(log_variance)
        loss = _nll(mean, target, log_variance)  # (B, d)
        if self.beta:
            loss = loss * (self.beta * log_variance.detach()).exp()
        return loss.mean(1)


class FaithfulLoss(HeteroscedasticLoss):
    """Half the squared error, and the likelihood of a variance around a mean that it cannot move.

    ``(y - mean)² / 2 + (log s² + (y - sg(mean))² / s²) / 2`` with sg for no gradient, averaged
    over the targets (arXiv:2212.09184). The mean learns as without a variance, if the variance
    does not train what the mean is told from either: its features must be detached, as
    `RegressionHead` does for ``variance`` of this loss. Arguments as in `HeteroscedasticLoss`.
    """

    variance = "detached"

    def per_event(self, mean: Tensor, target: Tensor, log_variance: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `TargetLoss.per_event`."""
        squared_error = (target - mean).square() / 2
        likelihood = _nll(mean.detach(), target, self.bound(log_variance))
        return (squared_error + likelihood).mean(1)


def _nll(mean: Tensor, target: Tensor, log_variance: Tensor) -> Tensor:
    return (log_variance + (target - mean).square() * (-log_variance).exp()) / 2


class _Bound(torch.autograd.Function):
    """Clamp, and stop the gradients whose descent leads further out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lowest: float, highest: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = lowest, highest
        return x.clamp(lowest, highest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,), (lowest, highest) = ctx.saved_tensors, ctx.range
        outward = ((x < lowest) & (grad > 0)) | ((x > highest) & (grad < 0))
        return grad.masked_fill(outward, 0.0), None, None
