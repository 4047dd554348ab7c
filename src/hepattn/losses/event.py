"""Losses for one answer an event, averaged with weights that may be negative."""

# B events, O outputs: one for two classes, else one a class

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.ops.distributed import mean_over_processes

Normalise = Literal["weights", "count"]


class EventLoss(nn.Module):
    """Average over the events of a batch what a subclass says each of them costs.

    Weights keep their sign in the sum. An event of weight zero or of label -1 has no influence,
    whatever its output is. A batch without any weight has a loss of zero and gradients of zero,
    and ``skipped`` is then True.

    With a negative weight the loss falls without end as an event's own loss grows, unless that has
    a highest value, which ``bounded_below`` says. Other losses refuse negative weights in training;
    in evaluation mode they are what they are.

    Args:
        normalise: What the weighted sum is divided by: the sum of the absolute ``weights``, or the
            number of events that have a label (``count``).
        allow_negative_weights: Whether to train with negative weights even if the loss is not
            bounded below with them.

    Raises:
        ValueError: If ``normalise`` is none of the two.
    """

    bounded_below: bool = False
    """Whether the loss has a lowest value also if some weights are negative."""
    skipped: Tensor
    """Whether the latest batch had no weight at all; a boolean scalar on the batch's device."""

    def __init__(
        self, normalise: Normalise = "weights", allow_negative_weights: bool = False
    ) -> None:
        super().__init__()
        if normalise not in get_args(Normalise):
            raise ValueError(f"normalise={normalise!r} must be one of {get_args(Normalise)}")
        self.normalise = normalise
        self.allow_negative_weights = allow_negative_weights

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event without weights.

        Args:
            logit: Scores before sigmoid or softmax (B, O), in float32 or more.
            label: Number of the true class (B).

        Returns:
            (B)
        """
        raise NotImplementedError(f"{type(self).__name__} must define per_event(logit, label)")

    def forward(self, logit: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        """Compute the loss in float32, also under autocast.

        Args:
            logit: Scores before sigmoid or softmax (B, O).
            label: Number of the true class, -1 where it is not known (B).
            weight: Weight of each event, of either sign (B).

        Returns:
            A scalar; zero, with gradients of zero, where all weights are.

        Raises:
            ValueError: If a weight is negative in training and the loss neither bounded below nor
                told to take it, or if outputs or labels do not fit the loss.
        """
        weight = self._weights(label, weight)
        self.skipped = (weight == 0).all()
        nothing = (weight == 0).view(-1, *[1] * (logit.ndim - 1))  # (B, 1)
        logit = logit.to(torch.promote_types(logit.dtype, torch.float32)).masked_fill(nothing, 0)
        with torch.autocast(logit.device.type, enabled=False):
            loss = self.per_event(logit, label.masked_fill(weight == 0, 0))  # (B)
        counted = weight.abs() if self.normalise == "weights" else (label >= 0).to(weight.dtype)
        total = mean_over_processes(counted.sum())
        return (loss * weight).sum() / torch.where(total == 0, 1, total)

    def _weights(self, label: Tensor, weight: Tensor) -> Tensor:
        """Weights that count, zero for events without a label (B)."""
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        weight = weight.masked_fill(label < 0, 0)
        if self.training and not (self.bounded_below or self.allow_negative_weights):
            num_negative = int((weight < 0).sum())
            if num_negative:
                raise ValueError(
                    f"{num_negative} of {len(weight)} events have negative weights, with which "
                    f"{type(self).__name__} is not bounded below: choose a loss that is, or set "
                    "allow_negative_weights: true"
                )
        return weight


class EventBinaryCrossEntropy(EventLoss):
    """Binary cross-entropy of events of two classes; arguments as in `EventLoss`."""

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `EventLoss.per_event`, O = 1."""
        logit = one_output(logit, label, self)
        return F.binary_cross_entropy_with_logits(logit, label.to(logit.dtype), reduction="none")


class EventSquaredError(EventLoss):
    """Squared distance between the scores themselves and 0 or 1.

    The target is the label for two classes, else 1 for the true class and 0 for the others, of
    which the mean over the classes is taken. Arguments as in `EventLoss`.
    """

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `EventLoss.per_event`."""
        if logit.shape[1] == 1:
            return (one_output(logit, label, self) - label).square()
        return (logit - F.one_hot(label, logit.shape[1])).square().mean(1)


def one_output(logit: Tensor, label: Tensor, loss: nn.Module) -> Tensor:
    """Take the one score (B) of each event of two classes out of (B, 1).

    Args:
        logit: Scores.
        label: Number of the true class (B).
        loss: What asks, for the message.

    Raises:
        ValueError: If there are several, or labels of more than two classes.
    """
    if logit.shape[1] != 1:
        raise ValueError(
            f"{type(loss).__name__} is for two classes and one output, not for {logit.shape[1]}: "
            "choose a loss of several classes"
        )
    require_two_classes(label, loss)
    return logit.squeeze(1)


def require_two_classes(label: Tensor, loss: nn.Module) -> None:
    """Refuse labels above 1, on the CPU alone: elsewhere to look at them would cost a wait.

    Args:
        label: Number of the true class (B).
        loss: What asks, for the message.

    Raises:
        ValueError: If one is above 1.
    """
    if label.device.type == "cpu" and (label > 1).any():
        raise ValueError(
            f"{type(loss).__name__} is for labels 0 and 1, not for {int(label.max())}: choose a "
            "loss of several classes"
        )


def several_outputs(logit: Tensor, loss: nn.Module) -> None:
    """Refuse a single score an event.

    Args:
        logit: Scores (B, O).
        loss: What asks, for the message.

    Raises:
        ValueError: If there is one.
    """
    if logit.shape[1] == 1:
        raise ValueError(
            f"{type(loss).__name__} needs one output for each of several classes, not a single "
            "one: choose a loss of two classes"
        )
