"""Figures show the numbers that they are given."""

import pytest
import torch

from hepattn.training.figures import plot_confusion


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_a_confusion_has_the_shares_of_each_class_whatever_the_weights(unit: float) -> None:
    counts = unit * torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 6.0]])
    axis = plot_confusion(counts, ["a", "b", "c"]).axes[0]
    shown = [text.get_text() for text in axis.texts]
    assert shown == ["75", "25", "0", "0", "0", "0", "0", "25", "75"]
