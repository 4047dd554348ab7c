"""What is quoted of a jet tagger: accuracy, area under the curve, background rejection."""

# J jets, C classes

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_roc
from torchmetrics.utilities import dim_zero_cat

from hepattn.metrics.efficiency import Efficiency, efficiency


class Rejection(NamedTuple):
    """One over the background efficiency at a signal efficiency, and its 68.3 % interval.

    ``value`` and ``high`` are infinite where no background jet passes.
    """

    value: float
    low: float
    high: float


class TaggingMetrics(Metric):
    """Collect the scores of all jets and answer questions about them.

    Several processes answer for all of their jets together inside ``sync_context()``. Jets without
    a label (-1) are left out.

    Args:
        num_classes: Number of classes C.
    """

    full_state_update = False
    score: list[Tensor]
    label: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("score", default=[], dist_reduce_fx="cat")
        self.add_state("label", default=[], dist_reduce_fx="cat")

    def update(self, logit: Tensor, label: Tensor) -> None:
        """Add a batch.

        Args:
            logit: Scores before the softmax (J, C).
            label: Number of the true class (J), -1 where it is not known.

        Raises:
            FloatingPointError: If a score is not finite.
        """
        known = label >= 0
        if not logit[known].isfinite().all():
            raise FloatingPointError("the network's scores are not finite; its training diverged")
        self.score.append(logit[known].double().softmax(-1))
        self.label.append(label[known])

    def compute(self) -> float:
        """The share of right answers."""
        return float(self.accuracy().value)

    def scores(self) -> tuple[Tensor, Tensor]:
        """Probabilities (J, C) and labels (J) of all jets, empty where there were none."""
        if not len(self.score):
            return torch.empty(0, self.num_classes), torch.empty(0, dtype=torch.long)
        return dim_zero_cat(self.score), dim_zero_cat(self.label)

    def present(self) -> list[int]:
        """Numbers of the classes that have jets."""
        return self.scores()[1].unique().tolist()

    def accuracy(self) -> Efficiency:
        """Share of jets whose highest score is that of the true class."""
        score, label = self.scores()
        return efficiency(int((score.argmax(-1) == label).sum()), len(label))

    def auc(self) -> float:
        """Area under the ROC curve; over several classes the mean of all ordered pairs.

        For classes a and b the area is that of the score of a over the jets of both (one against
        one, macro average, arXiv:2202.03772; doi:10.1023/A:1010920819831). Classes without jets are
        left out; NaN with fewer than two classes.
        """
        score, label = self.scores()
        if self.num_classes == 2:
            pairs = [(1, 0)] if len(self.present()) == 2 else []
        else:
            pairs = list(itertools.permutations(self.present(), 2))
        areas = [
            binary_auroc(score[chosen, a], (label[chosen] == a).long())
            for a, b in pairs
            for chosen in [(label == a) | (label == b)]
        ]
        return float(torch.stack(areas).mean()) if areas else float("nan")

    def confusion(self) -> Tensor:
        """Jets by true class and by class of the highest score, (C, C)."""
        score, label = self.scores()
        cell = label * self.num_classes + score.argmax(-1)
        counts = torch.bincount(cell, minlength=self.num_classes**2)
        return counts.view(self.num_classes, self.num_classes)

    def roc(self, signal: int, background: int = 0) -> tuple[Tensor, Tensor]:
        """Background and signal efficiencies of all cuts on `discriminant`.

        Args:
            signal: Number of the signal class.
            background: Number of the background class.
        """
        value, is_signal = self._discriminant(signal, background)
        background_efficiency, signal_efficiency, _ = binary_roc(value, is_signal.long())
        return background_efficiency, signal_efficiency

    def rejection(
        self, signal: int, signal_efficiency: float, background: int = 0
    ) -> Rejection | None:
        """One over the share of background that a cut leaves which keeps this share of signal.

        Args:
            signal: Number of the signal class.
            signal_efficiency: Share of the signal that the cut keeps at least, in (0, 1].
            background: Number of the background class.

        Returns:
            None where one of the classes has no jets.
        """
        value, is_signal = self._discriminant(signal, background)
        kept, lost = value[is_signal], value[~is_signal]
        if not len(kept) or not len(lost):
            return None
        num_kept = max(1, -int(-signal_efficiency * len(kept) // 1))  # rounded up
        cut = kept.sort(descending=True).values[num_kept - 1]
        share = efficiency(int((lost >= cut).sum()), len(lost))
        value, low, high = (
            1 / float(part) if part > 0 else float("inf")
            for part in (share.value, share.high, share.low)
        )
        return Rejection(value, low, high)

    def _discriminant(self, signal: int, background: int) -> tuple[Tensor, Tensor]:
        """Score the jets of two classes by `discriminant`; also tell which are signal."""
        score, label = self.scores()
        chosen = (label == signal) | (label == background)
        pair = score[chosen][:, [signal, background]]
        return discriminant(pair[:, 0], pair[:, 1]), label[chosen] == signal


def discriminant(signal: Tensor, background: Tensor) -> Tensor:
    """Make one score of two probabilities: signal / (signal + background), one half of nothing.

    Args:
        signal: Probabilities of the signal class, any shape.
        background: Probabilities of the background class.
    """
    total = signal + background
    return torch.where(total > 0, signal / total, 0.5)
