"""What is quoted of an event classifier, with event weights."""

# J events, C classes, U different scores

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hepattn.metrics.calibration import Reliability, reliability
from hepattn.metrics.efficiency import efficiency
from hepattn.metrics.significance import SignificanceScan, significance_scan
from hepattn.metrics.tagging import Rejection
from hepattn.nn.scaling import class_logits

Group = Sequence[int]


class Passing(NamedTuple):
    """Summed weights of the events that pass each cut on a score, the tightest cut first.

    Attributes:
        signal: Of the signal; zero, then what has the U highest scores (U + 1).
        background: Of the background likewise (U + 1).
    """

    signal: Tensor
    background: Tensor


class EventMetrics(Metric):
    """Collect the logits of all events and answer questions about them.

    Several processes answer for all of their events together inside ``sync_context()``. Events
    without a label (-1) are left out.

    Weights of either sign enter all sums as they are, as they do in a histogram of expected
    events, so that figures of signed weights estimate those of the distribution that they stand
    for. A figure whose denominator is not positive then is NaN; the curves of efficiencies need
    not rise steadily, and may leave [0, 1] where few events are left.

    Signal and background are groups of classes: an event's score is the log of the odds of the
    signal's classes against those of the background, and events of other classes are left out.

    Args:
        num_classes: Number of classes C.
    """

    full_state_update = False
    logit: list[Tensor]
    label: list[Tensor]
    weight: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("logit", "label", "weight"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logit: Tensor, label: Tensor, weight: Tensor) -> None:
        """Add a batch.

        Args:
            logit: Scores before the softmax (J, C), or before the sigmoid of two classes (J, 1).
            label: Number of the true class (J), -1 where it is not known.
            weight: Weight of each event (J).

        Raises:
            FloatingPointError: If a score is not finite.
        """
        known = label >= 0
        logit = class_logits(logit[known].detach().float())
        if not logit.isfinite().all():
            raise FloatingPointError("the network's scores are not finite; its training diverged")
        self.logit.append(logit)
        self.label.append(label[known])
        self.weight.append(weight[known].double())

    def compute(self) -> float:
        """The weighted share of right answers."""
        return self.accuracy()

    def collected(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of the probabilities (J, C), labels (J) and weights (J) of all events."""
        if not len(self.logit):
            empty = torch.empty(0, dtype=torch.float64)
            return empty.view(0, self.num_classes), empty.long(), empty
        logit, label, weight = map(dim_zero_cat, (self.logit, self.label, self.weight))
        return logit.double().log_softmax(-1), label, weight

    def present(self) -> list[int]:
        """Numbers of the classes that have events."""
        return self.collected()[1].unique().tolist()

    def confusion(self) -> Tensor:
        """Summed weights by true class and by the most likely class, (C, C)."""
        score, label, weight = self.collected()
        cell = label * self.num_classes + score.argmax(-1)
        sums = torch.zeros(self.num_classes**2, dtype=weight.dtype, device=weight.device)
        return sums.index_add_(0, cell, weight).view(self.num_classes, self.num_classes)

    def accuracy(self) -> float:
        """Weighted share of events whose most likely class is the true one."""
        confusion = self.confusion()
        return float(_divide(confusion.trace(), confusion.sum()))

    def f1(self) -> Tensor:
        """F1 of each class, 2 TP / (2 TP + FP + FN) (C); NaN for a class neither true nor chosen.

        Their mean, ``f1().nanmean()``, is what is quoted of several classes.
        """
        confusion = self.confusion()
        return _divide(2 * confusion.diagonal(), confusion.sum(0) + confusion.sum(1))

    def auc(self) -> float:
        """Area under the ROC curve; over several classes the mean of all ordered pairs.

        For classes a and b it is that of the probability of a over the events of both (one against
        one, doi:10.1023/A:1010920819831). Classes without events are left out; NaN with fewer
        than two.
        """
        score, label, weight = self.collected()
        present = label.unique().tolist()
        if self.num_classes == 2:
            pairs = [(1, 0)] if len(present) == 2 else []
        else:
            pairs = list(itertools.permutations(present, 2))
        areas = [
            _area(passing(score[chosen, a], label[chosen] == a, weight[chosen]))
            for a, b in pairs
            for chosen in [(label == a) | (label == b)]
        ]
        return sum(areas) / len(areas) if areas else float("nan")

    def area(self, signal: Group = (1,), background: Group = (0,)) -> float:
        """Area under `roc`, ties counting half; NaN where either has no weight.

        Args:
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.
        """
        return _area(passing(*self.discriminant(signal, background)))

    def one_against_rest(self) -> dict[int, tuple[Group, Group]]:
        """Each of several classes that has events as the signal, with all others as background.

        Returns:
            Both groups by the number of the class; nothing of two classes.
        """
        present, classes = self.present(), range(self.num_classes)
        if self.num_classes == 2 or len(present) < 2:
            return {}
        return {own: ((own,), tuple(other for other in classes if other != own)) for own in present}

    def average_precision(self, signal: Group = (1,), background: Group = (0,)) -> float:
        """Precision averaged over the steps of the recall, (Rₙ − Rₙ₋₁) Pₙ summed.

        Args:
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.
        """
        counts = passing(*self.discriminant(signal, background))
        precision = _divide(counts.signal, counts.signal + counts.background)[1:]
        recall = _divide(counts.signal, counts.signal[-1])
        return float((recall.diff() * precision.nan_to_num()).sum())

    def roc(self, signal: Group = (1,), background: Group = (0,)) -> tuple[Tensor, Tensor]:
        """Background and signal efficiencies of all cuts on `discriminant`, from nothing to all.

        Args:
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.
        """
        counts = passing(*self.discriminant(signal, background))
        return (
            _divide(counts.background, counts.background[-1]),
            _divide(counts.signal, counts.signal[-1]),
        )

    def rejection(
        self, signal_efficiency: float, signal: Group = (1,), background: Group = (0,)
    ) -> Rejection | None:
        """One over the share of background that a cut leaves which keeps this share of signal.

        The interval is that of the effective number of background events, (Σw)²/Σw².

        Args:
            signal_efficiency: Share of the signal that the cut keeps at least, in (0, 1].
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.

        Returns:
            None where either has no events, or no weight in sum.
        """
        score, is_signal, weight = self.discriminant(signal, background)
        counts = passing(score, is_signal, weight)
        if not (counts.signal[-1] > 0 and counts.background[-1] > 0):
            return None
        enough = counts.signal >= (signal_efficiency - 1e-12) * counts.signal[-1]
        index = max(1, int(enough.to(torch.uint8).argmax()))
        share = float((counts.background[index] / counts.background[-1]).clamp(0, 1))
        number = float(effective_number(weight[~is_signal]))
        interval = efficiency(share * number, number)
        value, low, high = (
            1 / float(part) if part > 0 else float("inf")
            for part in (share, interval.high, interval.low)
        )
        return Rejection(value, low, high)

    def significance(
        self,
        signal: Group = (1,),
        background: Group = (0,),
        num_thresholds: int = 200,
        scale: float = 1.0,
    ) -> SignificanceScan:
        """Expected significance of cuts on the probability of the signal, and of its histogram.

        Weights times the scale have to be expected numbers of events.

        Args:
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.
            num_thresholds: Number of cuts.
            scale: Factor of all weights, such as 10 for a test that has a tenth of all events.
        """
        score, is_signal, weight = self.discriminant(signal, background)
        return significance_scan(score.sigmoid(), is_signal, scale * weight, num_thresholds)

    def reliability(self, num_bins: int = 15) -> Reliability:
        """Compare the probabilities with what happened, see `metrics.calibration.reliability`."""
        score, label, weight = self.collected()
        return reliability(score.exp(), label, weight, num_bins)

    def odds(self, signal: Group, background: Group) -> Tensor:
        """Log of the odds of the signal's classes against those of the background (J).

        Args:
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.
        """
        score = self.collected()[0]
        return score[:, list(signal)].logsumexp(-1) - score[:, list(background)].logsumexp(-1)

    def discriminant(self, signal: Group, background: Group) -> tuple[Tensor, Tensor, Tensor]:
        """Score the events of two groups of classes.

        Args:
            signal: Numbers of the signal classes.
            background: Numbers of the background classes.

        Returns:
            Of the events in either group: log of the odds of the signal, which of them are
            signal, and weights, each (J).

        Raises:
            ValueError: If a group is empty or they share a class.
        """
        signal, background = list(signal), list(background)
        if not signal or not background or set(signal) & set(background):
            raise ValueError(
                f"signal={signal} and background={background} must name different classes"
            )
        _, label, weight = self.collected()
        is_signal = torch.isin(label, torch.tensor(signal, device=label.device))
        chosen = is_signal | torch.isin(label, torch.tensor(background, device=label.device))
        return self.odds(signal, background)[chosen], is_signal[chosen], weight[chosen]


def passing(score: Tensor, is_signal: Tensor, weight: Tensor) -> Passing:
    """Sum the weights above every cut on a score; equal scores pass together.

    Args:
        score: Score of each event (J).
        is_signal: True for signal, False for background (J).
        weight: Weight of each event (J), of either sign.
    """
    score, order = score.sort(descending=True)
    is_signal, weight = is_signal[order], weight[order].double()
    last = torch.cat([score[1:] != score[:-1], torch.ones_like(score[:1], dtype=torch.bool)])

    def summed(chosen: Tensor) -> Tensor:
        sums = torch.where(chosen, weight, 0.0).cumsum(0)[last]
        return torch.cat([sums.new_zeros(1), sums])  # (U + 1)

    return Passing(summed(is_signal), summed(~is_signal))


def effective_number(weight: Tensor) -> Tensor:
    """Number of events of equal weight whose sum is as uncertain: (Σw)²/Σw²; zero of none."""
    squares = weight.square().sum()
    return torch.where(squares > 0, weight.sum().square() / squares, 0.0)


def _area(counts: Passing) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties counting half."""
    pairs = torch.trapezoid(counts.signal, counts.background)
    if not (counts.signal[-1] > 0 and counts.background[-1] > 0):
        return float("nan")
    return float(pairs / (counts.signal[-1] * counts.background[-1]))


def _divide(part: Tensor, total: Tensor) -> Tensor:
    return part / torch.where(total > 0, total, torch.nan)
