"""Losses for classes: yes or no for the tokens of an event, one of several for an event."""

# B events, N tokens, C classes

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.losses.event import EventLoss, Normalise, several_outputs
from hepattn.ops.distributed import mean_over_processes, weighted_mean


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy, averaged over the real tokens of the batch.

    Args:
        positive_weight: Weight of the positive tokens; ``batch`` takes the batch's own ratio of
            negative to positive tokens, so that both classes weigh the same.

    Raises:
        ValueError: If the weight is not positive.
    """

    def __init__(self, positive_weight: float | Literal["batch"] = 1.0) -> None:
        super().__init__()
        if positive_weight != "batch" and positive_weight <= 0:
            raise ValueError(f"positive_weight={positive_weight} must be positive, or 'batch'")
        self.positive_weight = positive_weight

    def forward(self, logit: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logit: Scores before the sigmoid (B, N).
            label: True for positive tokens (B, N).
            valid: True for real tokens, or how much each weighs (B, N).

        Returns:
            A scalar; zero for a batch without real tokens.
        """
        if self.positive_weight == "batch":
            positive = mean_over_processes((label * valid).sum())
            weight = (mean_over_processes(valid.sum()) - positive) / torch.where(
                positive == 0, 1, positive
            )
        else:
            weight = torch.tensor(self.positive_weight, device=logit.device)
        loss = F.binary_cross_entropy_with_logits(
            logit.float(), label.float(), pos_weight=weight.float(), reduction="none"
        )  # (B, N)
        return weighted_mean(loss, valid)


class FocalLoss(nn.Module):
    """Focal loss: cross-entropy times ``(1 - p_true)^gamma`` (arXiv:1708.02002).

    Args:
        gamma: How strongly well classified tokens are weighed down.
        alpha: Weight of positive tokens; negative ones weigh ``1 - alpha``. No weights by default.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        check_focal(gamma, alpha)
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logit: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Compute the loss; arguments as in `BinaryCrossEntropy.forward`."""
        target = label.float()
        cross_entropy = F.binary_cross_entropy_with_logits(
            logit.float(), target, reduction="none"
        )  # (B, N)
        loss = cross_entropy * (1 - torch.exp(-cross_entropy)) ** self.gamma
        if self.alpha is not None:
            loss = loss * torch.where(label, self.alpha, 1 - self.alpha)
        return weighted_mean(loss, valid)


class CrossEntropy(EventLoss):
    """Cross-entropy of one class an event, averaged with the events' weights.

    Args:
        label_smoothing: Share of the target that is spread evenly over all classes.
        normalise: As in `EventLoss`.
        allow_negative_weights: As in `EventLoss`.

    Raises:
        ValueError: If the share is not in [0, 1).
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        normalise: Normalise = "weights",
        allow_negative_weights: bool = False,
    ) -> None:
        super().__init__(normalise, allow_negative_weights)
        check_smoothing("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `EventLoss.per_event`, O = C."""
        several_outputs(logit, self)
        return F.cross_entropy(logit, label, reduction="none", label_smoothing=self.label_smoothing)


def check_focal(gamma: float, alpha: float | None) -> None:
    """Refuse options of a focal loss that are out of range.

    Args:
        gamma: How strongly what is well classified is weighed down.
        alpha: Weight of what is positive; None for no weights.

    Raises:
        ValueError: If one is.
    """
    if 0 < gamma < 1 or gamma < 0:
        raise ValueError(f"gamma={gamma} must be 0 or at least 1, or its gradient is infinite")
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must be in [0, 1]")


def check_smoothing(name: str, smoothing: float) -> None:
    """Refuse a share of smoothing that is out of range.

    Args:
        name: Name of the option.
        smoothing: Share of the target that is spread evenly over all classes.

    Raises:
        ValueError: If it is not in [0, 1).
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"{name}={smoothing} must be at least 0 and below 1")
