"""Expected significance of a signal over a known background."""

# J events, T thresholds, K bins

from typing import NamedTuple

import torch
from torch import Tensor

NO_BACKGROUND = 1e-9
SMALL = 1e-3  # signal over background below which the logarithm is expanded


class SignificanceScan(NamedTuple):
    """Significances of cutting a score at thresholds, and of a histogram of it.

    Attributes:
        threshold: Least scores that are kept (T).
        signal: Summed signal weights above each threshold (T).
        background: Summed background weights likewise (T).
        significance: Of a count of what is above each threshold (T).
        binned: Of a histogram of the score: square root of the sum of the squares of its bins.
    """

    threshold: Tensor
    signal: Tensor
    background: Tensor
    significance: Tensor
    binned: float

    def best(self) -> tuple[float, float]:
        """The largest significance of a cut, and its threshold."""
        value, index = self.significance.max(0)
        return float(value), float(self.threshold[index])


def asimov_significance(signal: Tensor, background: Tensor) -> Tensor:
    """Median significance of discovery for counts s over known b (arXiv:1007.1727, equation 97).

    It is √(2 [(s + b) ln(1 + s/b) − s]), which tends to s/√b for s « b.

    Args:
        signal: Expected counts s, any shape; negative ones count as zero.
        background: Expected counts b; without background (1e-9) the significance is zero, since
            the formula has no answer there.
    """
    s, b = signal.double().clamp(min=0), background.double()
    some = b > NO_BACKGROUND
    x = s / torch.where(some, b, 1.0)
    # (1 + x) ln(1 + x) − x loses all digits for small x
    series = x.square() * (1 / 2 - x * (1 / 6 - x * (1 / 12 - x / 20)))
    term = torch.where(x < SMALL, series, (1 + x) * x.log1p() - x)
    return torch.where(some, (2 * b * term).clamp(min=0).sqrt(), 0.0)


def significance_scan(
    score: Tensor,
    is_signal: Tensor,
    weight: Tensor,
    num_thresholds: int = 200,
    num_bins: int = 10,
) -> SignificanceScan:
    """Expected significances of selecting events by a score.

    Events that belong to neither signal nor background have to be left out before.

    Args:
        score: Score of each event in [0, 1] (J).
        is_signal: True for signal, False for background (J).
        weight: Expected number of events that each one stands for, of either sign (J).
        num_thresholds: Number of thresholds T, in equal steps from 0 (everything is kept) to 1.
        num_bins: Number of equal bins K of the histogram.
    """
    threshold = torch.linspace(0, 1, num_thresholds, dtype=torch.float64, device=score.device)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=score.device)
    score = score.double()

    def binned(lower_edges: Tensor, chosen: Tensor) -> Tensor:
        """Summed weights between each edge and the next one, the last one open."""
        place = torch.searchsorted(lower_edges, score[chosen], right=True) - 1
        sums = torch.zeros_like(lower_edges)
        return sums.index_add_(0, place, weight[chosen].double())

    def above(chosen: Tensor) -> Tensor:
        return binned(threshold, chosen).flip(0).cumsum(0).flip(0)

    signal, background = above(is_signal), above(~is_signal)
    of_bins = asimov_significance(binned(edges[:-1], is_signal), binned(edges[:-1], ~is_signal))
    return SignificanceScan(
        threshold,
        signal,
        background,
        asimov_significance(signal, background),
        float(of_bins.square().sum().sqrt()),
    )
