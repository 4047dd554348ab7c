"""Weighted figures of event classifiers against scikit-learn and loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from torch import Tensor

from hepattn.metrics.event_classification import EventMetrics, effective_number
from hepattn.metrics.tagging import TaggingMetrics

Events = tuple[Tensor, Tensor, Tensor]


def draw(num_classes: int, num: int = 300) -> Events:
    label = torch.randint(num_classes, (num,))
    logit = torch.randn(num, num_classes) + 0.7 * torch.eye(num_classes)[label]
    if num_classes == 2:
        logit = logit[:, 1:] - logit[:, :1]
    return logit.round(decimals=1), label, torch.rand(num) + 0.1  # with ties


def collect(events: Events, num_classes: int) -> EventMetrics:
    metrics = EventMetrics(num_classes)
    for part in zip(*(x.chunk(3) for x in events), strict=True):
        metrics.update(*part)
    return metrics


@pytest.mark.parametrize("num_classes", [2, 4])
def test_accuracy_and_f1_are_those_of_sklearn(num_classes: int) -> None:
    events = draw(num_classes)
    metrics = collect(events, num_classes)
    score, label, weight = metrics.collected()
    chosen = score.argmax(1)
    assert metrics.compute() == pytest.approx(accuracy_score(label, chosen, sample_weight=weight))
    expected = f1_score(label, chosen, average=None, sample_weight=weight)
    np.testing.assert_allclose(metrics.f1().numpy(), expected, rtol=1e-9)


def test_auc_and_average_precision_of_two_classes_are_those_of_sklearn() -> None:
    logit, label, weight = events = draw(2)
    metrics = collect(events, 2)
    given = {"y_true": label, "y_score": logit[:, 0], "sample_weight": weight}
    assert metrics.auc() == pytest.approx(roc_auc_score(**given), abs=1e-6)
    expected = average_precision_score(**given)
    assert metrics.average_precision() == pytest.approx(expected, abs=1e-6)


def test_each_class_against_the_rest_is_judged_by_its_probability() -> None:
    logit, label, weight = events = draw(4)
    label[label == 3] = 1  # a class without events
    metrics, score = collect(events, 4), logit.double().softmax(-1)
    groups = metrics.one_against_rest()
    assert list(groups) == [0, 1, 2]
    for own, (signal, rest) in groups.items():
        assert {*signal, *rest} == {0, 1, 2, 3}
        expected = score[:, own].log() - (-score[:, own]).log1p()
        torch.testing.assert_close(metrics.odds(signal, rest), expected)
        area = roc_auc_score(label == own, score[:, own], sample_weight=weight)
        assert metrics.area(signal, rest) == pytest.approx(area, abs=1e-6)
    assert collect(draw(2), 2).one_against_rest() == {}
    one = (logit, torch.zeros_like(label), weight)
    assert collect(one, 4).one_against_rest() == {}


def test_auc_of_several_classes_is_the_mean_of_all_pairs() -> None:
    logit, label, weight = events = draw(3)
    score = logit.double().softmax(-1)
    areas = []
    for a, b in itertools.permutations(range(3), 2):
        some = (label == a) | (label == b)
        given = {"sample_weight": weight[some]}
        areas.append(roc_auc_score(label[some] == a, score[some, a], **given))
    assert collect(events, 3).auc() == pytest.approx(np.mean(areas), abs=1e-6)


def test_signed_weights_count_pairs_with_their_sign() -> None:
    logit, label, weight = draw(2, num=80)
    weight = weight - 0.4
    weight[0], weight[1] = 9.0, 9.0
    label[0], label[1] = 0, 1
    z, up, down = logit[:, 0], label == 1, label == 0
    right = (z[up][:, None] > z[down]).double() + 0.5 * (z[up][:, None] == z[down])
    pairs = weight[up][:, None].double() * weight[down]
    expected = float((right * pairs).sum() / pairs.sum())
    assert collect((logit, label, weight), 2).auc() == pytest.approx(expected, abs=1e-6)


def test_weights_that_sum_to_nothing_give_no_figure() -> None:
    logit, label, weight = draw(2)
    metrics = collect((logit, label, -weight), 2)
    assert math.isnan(metrics.accuracy())
    assert math.isnan(metrics.auc())
    assert metrics.rejection(0.5) is None


def test_rejection_without_weights_is_that_of_a_tagger() -> None:
    logit, label, _ = draw(3)
    tagger = TaggingMetrics(3)
    tagger.update(logit, label)
    metrics = collect((logit, label, torch.ones(300)), 3)
    for share in (0.3, 0.5, 1.0):
        ours, theirs = metrics.rejection(share, (2,), (0,)), tagger.rejection(2, share)
        assert ours == pytest.approx(theirs)


def test_rejection_of_a_group_weighs_events() -> None:
    logit, label, weight = events = draw(4)
    p = logit.double().softmax(-1)
    odds = (p[:, 1] + p[:, 2]) / p[:, 0]
    up, down = (label == 1) | (label == 2), label == 0
    cuts = [c for c in odds[up] if weight[up][odds[up] >= c].sum() >= 0.6 * weight[up].sum()]
    share = weight[down][odds[down] >= max(cuts)].sum() / weight[down].sum()
    found = collect(events, 4).rejection(0.6, signal=(1, 2), background=(0,))
    assert found.value == pytest.approx(float(1 / share), rel=1e-5)
    assert found.low < found.value < found.high


def test_a_curve_goes_from_nothing_to_all() -> None:
    background, signal = collect(draw(2), 2).roc()
    assert float(background[0]) == float(signal[0]) == 0
    assert float(background[-1]) == float(signal[-1]) == 1


def test_groups_leave_out_other_classes_in_the_significance() -> None:
    _, label, weight = events = draw(3)
    scan = collect(events, 3).significance(signal=(2,), background=(0,))
    assert float(scan.background[0]) == pytest.approx(float(weight[label == 0].sum()), rel=1e-6)
    assert float(scan.signal[0]) == pytest.approx(float(weight[label == 2].sum()), rel=1e-6)


def test_groups_must_differ() -> None:
    with pytest.raises(ValueError, match="must name different classes"):
        collect(draw(3), 3).roc((1, 2), (2,))


def test_events_without_a_label_are_left_out() -> None:
    logit, label, weight = draw(2)
    half = torch.where(torch.arange(300) < 100, label, -1)
    ours = collect((logit, half, weight), 2)
    assert ours.auc() == collect((logit[:100], label[:100], weight[:100]), 2).auc()
    assert ours.reliability().weight.sum() == pytest.approx(float(weight[:100].sum()), rel=1e-6)


def test_figures_of_no_events_say_so() -> None:
    metrics = EventMetrics(3)
    assert math.isnan(metrics.accuracy())
    assert math.isnan(metrics.auc())
    assert metrics.f1().isnan().all()
    assert metrics.present() == []


def test_logits_that_are_not_finite_stop() -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        EventMetrics(2).update(torch.tensor([[math.nan]]), torch.tensor([1]), torch.ones(1))


def test_equal_weights_count_fully_and_unequal_ones_less() -> None:
    assert float(effective_number(torch.full((7,), 0.3))) == pytest.approx(7)
    assert float(effective_number(torch.tensor([1.0, 3.0]))) == pytest.approx(1.6)
    assert float(effective_number(torch.zeros(0))) == 0


def test_several_processes_answer_for_all_of_their_events_together() -> None:
    events = draw(3)
    metrics = collect(events, 3)
    both = {"dist_sync_fn": lambda x, group: [x, x], "distributed_available": lambda: True}
    with metrics.sync_context(**both):
        total, area = float(metrics.confusion().sum()), metrics.auc()
    assert total == pytest.approx(2 * float(events[2].sum()), rel=1e-6)
    assert area == pytest.approx(metrics.auc())
