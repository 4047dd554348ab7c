"""Figures of a jet tagger."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score
from torch import Tensor

from hepattn.metrics.tagging import TaggingMetrics, discriminant


def collected(logit: Tensor, label: Tensor, num_batches: int = 3) -> TaggingMetrics:
    metrics = TaggingMetrics(logit.shape[1])
    parts = zip(logit.chunk(num_batches), label.chunk(num_batches), strict=True)
    for part in parts:
        metrics.update(*part)
    return metrics


def random_scores(num_classes: int, num_jets: int = 300) -> tuple[Tensor, Tensor]:
    label = torch.randint(num_classes, (num_jets,))
    logit = torch.randn(num_jets, num_classes) + 0.7 * torch.eye(num_classes)[label]
    return logit, label


def test_accuracy_and_confusion_are_those_of_sklearn() -> None:
    logit, label = random_scores(4)
    metrics = collected(logit, label)
    assert metrics.compute() == pytest.approx(accuracy_score(label, logit.argmax(-1)))
    expected = confusion_matrix(label, logit.argmax(-1))
    np.testing.assert_array_equal(metrics.confusion().numpy(), expected)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_auc_is_the_one_against_one_mean_of_sklearn(num_classes: int) -> None:
    logit, label = random_scores(num_classes)
    score = logit.double().softmax(-1).numpy()
    ours = collected(logit, label).auc()
    theirs = roc_auc_score(label, score if num_classes > 2 else score[:, 1], multi_class="ovo")
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_auc_leaves_out_classes_without_jets() -> None:
    logit, label = random_scores(3)
    some = label < 2
    ours = collected(logit[some], label[some]).auc()
    score = logit[some].double().softmax(-1)
    areas = [roc_auc_score(label[some] == a, score[:, a]) for a in (0, 1)]
    assert ours == pytest.approx(sum(areas) / 2, abs=1e-6)
    assert math.isnan(collected(logit[label == 0], label[label == 0]).auc())


def test_rejection_counts_the_background_above_the_cut_that_keeps_the_signal() -> None:
    score = torch.tensor([0.9, 0.8, 0.6, 0.2, 0.95, 0.7, 0.5, 0.4, 0.3, 0.1])
    label = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    metrics = collected(torch.stack([1 - score, score], -1).log(), label)
    rejection = metrics.rejection(1, 0.5)  # keeps 0.9 and 0.8; 0.95 passes
    assert rejection is not None
    assert rejection.value == pytest.approx(6)
    assert rejection.low < rejection.value < rejection.high
    assert metrics.rejection(1, 0.51).value == pytest.approx(3)  # down to 0.6; 0.95, 0.7 pass


def test_rejection_of_nothing_that_passes_is_infinite_above_a_bound() -> None:
    score = torch.tensor([0.9, 0.8, 0.2, 0.1])
    metrics = collected(torch.stack([1 - score, score], -1).log(), torch.tensor([1, 1, 0, 0]))
    rejection = metrics.rejection(1, 1.0)
    assert math.isinf(rejection.value)
    assert 1 < rejection.low < math.inf


def test_rejection_of_a_class_uses_its_score_against_the_background_alone() -> None:
    logit, label = random_scores(3)
    score = logit.double().softmax(-1)
    value = score[:, 2] / (score[:, 2] + score[:, 0])
    signal = value[label == 2].sort().values
    cut = signal[len(signal) - math.ceil(0.5 * len(signal))]
    passed = (value[label == 0] >= cut).double().mean()
    ours = collected(logit, label).rejection(2, 0.5)
    assert ours.value == pytest.approx(float(1 / passed))


def test_jets_without_a_label_are_left_out() -> None:
    logit, label = random_scores(3)
    half = torch.where(torch.arange(len(label)) < 100, label, -1)
    ours, expected = collected(logit, half), collected(logit[:100], label[:100])
    assert ours.compute() == expected.compute()
    assert ours.auc() == expected.auc()


def test_figures_of_no_jets_say_so() -> None:
    metrics = TaggingMetrics(3)
    assert math.isnan(metrics.auc())
    assert math.isnan(metrics.accuracy().value)
    assert metrics.rejection(1, 0.5) is None


def test_discriminant_of_nothing_is_one_half() -> None:
    ours = discriminant(torch.tensor([0.2, 0.0]), torch.tensor([0.6, 0.0]))
    assert ours.tolist() == pytest.approx([0.25, 0.5])
