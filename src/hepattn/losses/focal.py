"""Focal losses of events (arXiv:1708.02002): what is well classified weighs little.

Smoothing spreads a share of the target evenly over all classes. The losses are then cross-entropy
with the smoothed target t, times ``(1 - <t, p>)^gamma``, where p are the probabilities. For two
classes both are the same function.
"""

# B events, C classes

from torch import Tensor
from torch.nn import functional as F

from hepattn.losses.classification import check_focal, check_smoothing
from hepattn.losses.event import EventLoss, Normalise, one_output, several_outputs


class EventFocal(EventLoss):
    """What the focal losses of events share.

    Args:
        gamma: How strongly well classified events are weighed down.
        smoothing: Share of the target that is spread evenly over all classes.
        normalise: As in `EventLoss`.
        allow_negative_weights: As in `EventLoss`.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        smoothing: float = 0.0,
        normalise: Normalise = "weights",
        allow_negative_weights: bool = False,
    ) -> None:
        super().__init__(normalise, allow_negative_weights)
        check_focal(gamma, alpha=None)
        check_smoothing("smoothing", smoothing)
        self.gamma = gamma
        self.smoothing = smoothing


class SigmoidFocal(EventFocal):
    """Focal loss of two classes; arguments as in `EventFocal`."""

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `EventLoss.per_event`, O = 1."""
        logit = one_output(logit, label, self)  # (B)
        target = label.to(logit.dtype) * (1 - self.smoothing) + self.smoothing / 2
        cross_entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        wrong = target * (-logit).sigmoid() + (1 - target) * logit.sigmoid()
        return cross_entropy * wrong**self.gamma


class MulticlassFocal(EventFocal):
    """Focal loss of several classes; arguments as in `EventFocal`."""

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `EventLoss.per_event`, O = C."""
        several_outputs(logit, self)
        num_classes = logit.shape[1]
        target = F.one_hot(label, num_classes) * (1 - self.smoothing)
        target = target + self.smoothing / num_classes  # (B, C)
        log_probability = logit.log_softmax(1)  # (B, C)
        cross_entropy = -(target * log_probability).sum(1)
        wrong = -(target * log_probability.expm1()).sum(1)  # never below zero, as 1 - <t, p> may be
        return cross_entropy * wrong**self.gamma
