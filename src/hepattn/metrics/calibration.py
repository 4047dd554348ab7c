"""Whether probabilities are what they say: reliability and expected calibration error."""

# J events, C classes, K bins

from typing import NamedTuple

import torch
from torch import Tensor


class Reliability(NamedTuple):
    """Predicted and observed shares in bins of the predicted probability.

    Attributes:
        edges: Edges of the bins, equal steps from 0 to 1 (K + 1).
        weight: Sum of the weights of the events in each bin (K).
        predicted: Weighted mean of the probability in each bin, NaN without weight (K).
        observed: Weighted share of events that the probability was right about, NaN likewise (K).
    """

    edges: Tensor
    weight: Tensor
    predicted: Tensor
    observed: Tensor

    def error(self) -> float:
        """Expected calibration error: mean over the events of |observed − predicted| of their bin.

        Bins with negative weight count with its absolute value (arXiv:1706.04599, equation 3, with
        weights). NaN without events.
        """
        gap = (self.observed - self.predicted).abs().nan_to_num()
        total = self.weight.sum()
        return float((self.weight.abs() * gap).sum() / total) if total > 0 else float("nan")


def reliability(
    probability: Tensor, label: Tensor, weight: Tensor, num_bins: int = 15
) -> Reliability:
    """Compare probabilities with what happened.

    With two classes it is about the probability of the second one, in all of [0, 1]. With more it
    is about the most likely class of each event, and how often that is the true one.

    Args:
        probability: Probabilities of the classes (J, C).
        label: Number of the true class (J).
        weight: Weight of each event (J), of either sign: sums are those of the signed weights.
        num_bins: Number of bins K.
    """
    if probability.shape[1] == 2:
        claimed, right = probability[:, 1], label == 1
    else:
        claimed, chosen = probability.max(1)
        right = label == chosen
    claimed, weight = claimed.double(), weight.double()
    bins = (claimed * num_bins).long().clamp(max=num_bins - 1)  # (J)

    def summed(x: Tensor) -> Tensor:
        return torch.zeros(num_bins, dtype=x.dtype, device=x.device).index_add_(0, bins, x)

    total = summed(weight)
    mean_of = torch.where(total != 0, total, torch.nan)
    return Reliability(
        torch.linspace(0, 1, num_bins + 1, dtype=torch.float64),
        total,
        summed(weight * claimed) / mean_of,
        summed(weight * right) / mean_of,
    )
