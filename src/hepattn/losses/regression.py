"""Losses for numbers that are told of each event, averaged with the events' weights."""

# B events, d targets, O outputs: a mean for each target, and a log-variance if the loss wants one

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.regression_head import Variance
from hepattn.ops.distributed import weighted_mean

Distance = Literal[
    "smooth_l1", "l1", "mse", "relative_l1", "relative_mse", "relative_smooth_l1", "cosine"
]


class TargetLoss(nn.Module):
    """Average over the events of a batch what a subclass says each of them costs.

    An event of weight zero has no influence, whatever its output and its target are. A batch
    without any weight has a loss of zero and gradients of zero.
    """

    variance: Variance = "none"
    """Whether the loss needs a variance, and from which features: see `RegressionHead`."""

    @property
    def has_variance(self) -> bool:
        """Whether the outputs hold log-variances."""
        return self.variance != "none"

    def num_outputs(self, num_targets: int) -> int:
        """How many outputs a network needs for so many targets."""
        return (1 + self.has_variance) * num_targets

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take outputs (..., O) apart.

        Returns:
            Means (..., d), and log-variances (..., d) as the network says them; None if the loss
            has none.
        """
        if not self.has_variance:
            return output, None
        mean, log_variance = output.chunk(2, -1)
        return mean, log_variance

    def per_event(self, mean: Tensor, target: Tensor, log_variance: Tensor | None) -> Tensor:
        """Compute the loss of each event without weights.

        Args:
            mean: Means (B, d), in float32 or more.
            target: Targets (B, d).
            log_variance: Log-variances (B, d), if the loss has some.

        Returns:
            (B)
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define per_event(mean, target, log_variance)"
        )

    def forward(self, output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            output: Means and, behind them, log-variances if the loss has some (B, O).
            target: Targets (B, d).
            weight: Weight of each event (B), not negative; None if all weigh the same.

        Returns:
            A scalar: the weighted sum over the sum of the weights.

        Raises:
            ValueError: If outputs and targets do not fit together.
        """
        if output.shape != (len(target), self.num_outputs(target.shape[1])):
            raise ValueError(
                f"output of shape {tuple(output.shape)} must be {len(target)} events with "
                f"{self.num_outputs(target.shape[1])} numbers for the {target.shape[1]} targets "
                f"of {type(self).__name__}"
            )
        output, target = (
            x.to(torch.promote_types(x.dtype, torch.float32)) for x in (output, target)
        )
        if weight is None:
            weight = output.new_ones(len(output))
        nothing = (weight == 0).unsqueeze(1)  # (B, 1)
        mean, log_variance = self.split(output.masked_fill(nothing, 1.0))
        with torch.autocast(output.device.type, enabled=False):
            loss = self.per_event(mean, target.masked_fill(nothing, 1.0), log_variance)  # (B)
        return weighted_mean(loss, weight)


class RegressionLoss(TargetLoss):
    """A distance between predicted and true numbers, averaged over the targets.

    Args:
        kind: ``l1``, ``mse``, ``smooth_l1``: the square over ``2 beta`` up to ``beta``, then
            linear; the same of the residual over the absolute target (``relative_*``); or one
            minus the ``cosine`` of the angle between both vectors.
        beta: Where ``smooth_l1`` becomes linear.
        floor: Absolute targets below it count as it in the relative kinds.

    Raises:
        ValueError: If the kind is unknown or a number out of range.
    """

    def __init__(
        self, kind: Distance = "smooth_l1", beta: float = 1.0, floor: float = 1e-6
    ) -> None:
        super().__init__()
        if kind not in get_args(Distance):
            raise ValueError(f"kind={kind!r} must be one of {get_args(Distance)}")
        if beta <= 0:
            raise ValueError(f"beta={beta} must be positive; for beta=0 take kind='l1'")
        if floor <= 0:
            raise ValueError(f"floor={floor} must be positive")
        if beta != 1 and "smooth_l1" not in kind:
            warnings.warn(f"beta={beta} has no effect with kind={kind!r}", stacklevel=2)
        self.kind = kind
        self.beta = beta
        self.floor = floor

    def per_event(self, mean: Tensor, target: Tensor, log_variance: Tensor | None = None) -> Tensor:
        """Compute the loss of each event; arguments as in `TargetLoss.per_event`."""
        if self.kind == "cosine":
            if target.shape[1] == 1:
                raise ValueError(
                    "kind='cosine' compares vectors, not single numbers; choose another"
                )
            return 1 - F.cosine_similarity(mean, target, dim=1)
        if self.kind.startswith("relative"):
            scale = target.abs().clamp(min=self.floor)  # (B, d)
            mean, target = mean / scale, target / scale
        if self.kind.endswith("smooth_l1"):
            loss = F.smooth_l1_loss(mean, target, reduction="none", beta=self.beta)
        else:
            distance = F.mse_loss if self.kind.endswith("mse") else F.l1_loss
            loss = distance(mean, target, reduction="none")  # (B, d)
        return loss.mean(1)
