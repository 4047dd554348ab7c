"""What each event counts in training."""

# J events, C classes

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hepattn.data.error import DataError


@dataclass(frozen=True)
class Weighting:
    """How training weighs events and their classes.

    Args:
        column: Column of the events with their weights, of either sign; null where all events
            count alike.
        use_weights: Whether training weighs events by that column; figures always do.
        class_weights: Factor for each class that makes all classes worth the same: N / (n C) for
            n of N events in one of C classes. ``counts`` counts events, ``weights`` sums the
            absolute values of their weights. Either way they average to 1 over the training
            events, counted the same way.
        resampling: Makes classes as frequent as each other by leaving events out (``under``) or
            taking them several times (``over``), in training alone; or how many events of each
            class to draw.

    Raises:
        ValueError: If options contradict each other.
    """

    column: str | None = "weight"
    use_weights: bool = True
    class_weights: Literal["counts", "weights"] | None = None
    resampling: Literal["under", "over"] | dict[str, int] | None = None

    def __post_init__(self) -> None:
        is_weighted = self.column is not None and self.use_weights
        if self.resampling is not None and (is_weighted or self.class_weights is not None):
            raise ValueError(
                f"resampling={self.resampling} excludes weights: set use_weights=false and "
                "class_weights=null"
            )
        if self.class_weights == "weights" and not is_weighted:
            raise ValueError(
                "class_weights=weights must have weights to sum: give a column, or take counts"
            )
        if isinstance(self.resampling, dict):
            for name, number in self.resampling.items():
                if number < 1:
                    raise ValueError(f"resampling of {name}={number} must be at least 1")

    def fit(
        self, label: np.ndarray, weight: np.ndarray, classes: Sequence[str]
    ) -> tuple[float, ...] | None:
        """Find the factors of the classes.

        Args:
            label: Numbers of the classes of the training events (J).
            weight: Their weights (J).
            classes: Names of the classes.

        Returns:
            A factor for each class (C); None without class weights.

        Raises:
            DataError: If a class has no events.
        """
        if self.class_weights is None:
            return None
        known = label >= 0
        amount = np.abs(weight[known].astype(np.float64))
        if self.class_weights == "counts":
            amount = np.ones_like(amount)
        total = np.bincount(label[known], amount, len(classes))  # (C)
        require_classes(total, classes)
        return tuple((total.sum() / (total * len(classes))).tolist())

    def weigh(
        self, label: np.ndarray, weight: np.ndarray, factors: Sequence[float] | None
    ) -> np.ndarray:
        """Weights of events in training.

        Args:
            label: Numbers of their classes (J); those without one weigh nothing.
            weight: Their weights (J).
            factors: What ``fit`` returned.

        Returns:
            (J) in float32.
        """
        own = weight if self.use_weights else np.ones_like(weight)
        if factors is not None:
            own = own * np.append(factors, 0.0)[label]  # -1 takes the last one
        return np.where(label < 0, 0, own).astype(np.float32)


def require_every_class(label: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse training events that lack a class.

    Args:
        label: Numbers of their classes, -1 for none (J).
        classes: Names of the classes (C).

    Raises:
        DataError: If a class has no events.
    """
    require_classes(np.bincount(label[label >= 0], minlength=len(classes)), classes)


def require_classes(total: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse a class without events.

    Args:
        total: Number of events of each class (C).
        classes: Their names (C).

    Raises:
        DataError: If one has none.
    """
    if empty := [name for name, number in zip(classes, total, strict=True) if not number]:
        raise DataError.of(
            "training events", "classes", found=f"none of {', '.join(empty)}", expected="some"
        )
