"""Classification losses against loops over the real tokens."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.losses.classification import BinaryCrossEntropy, CrossEntropy, FocalLoss


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    valid = torch.tensor([[True, True, True, False], [True, False, False, False]])
    label = torch.tensor([[True, False, False, True], [False, True, True, True]])
    return torch.randn(2, 4), label, valid


def loop(logit: Tensor, label: Tensor, valid: Tensor, positive: float, negative: float) -> float:
    terms = []
    for x, y, real in zip(logit.ravel(), label.ravel(), valid.ravel(), strict=True):
        p = 1 / (1 + math.exp(-x))
        if real:
            terms.append(-positive * math.log(p) if y else -negative * math.log(1 - p))
    return sum(terms) / len(terms)


def test_cross_entropy_averages_over_real_tokens(batch: tuple) -> None:
    assert_close(BinaryCrossEntropy()(*batch).item(), loop(*batch, 1, 1))


def test_positive_weight_scales_the_positive_tokens(batch: tuple) -> None:
    assert_close(BinaryCrossEntropy(2.5)(*batch).item(), loop(*batch, 2.5, 1))


def test_batch_weight_is_the_ratio_of_real_negatives_to_positives(batch: tuple) -> None:
    assert_close(BinaryCrossEntropy("batch")(*batch).item(), loop(*batch, 3 / 1, 1))


def test_focal_loss_weighs_well_classified_tokens_down(batch: tuple) -> None:
    logit, label, valid = batch
    terms = []
    for x, y, real in zip(logit.ravel(), label.ravel(), valid.ravel(), strict=True):
        p = 1 / (1 + math.exp(-x))
        p_true, alpha = (p, 0.3) if y else (1 - p, 0.7)
        if real:
            terms.append(-alpha * (1 - p_true) ** 1.5 * math.log(p_true))
    assert_close(FocalLoss(1.5, 0.3)(*batch).item(), sum(terms) / len(terms))


@pytest.mark.parametrize("loss", [BinaryCrossEntropy("batch"), FocalLoss()])
def test_padding_gets_no_gradient_and_an_empty_batch_no_loss(
    loss: torch.nn.Module, batch: tuple
) -> None:
    logit, label, valid = batch
    logit.requires_grad_()
    loss(logit, label, valid).backward()
    assert (logit.grad[~valid] == 0).all()
    assert (logit.grad[valid] != 0).all()
    assert loss(logit, label, torch.zeros_like(valid)) == 0


@pytest.mark.parametrize("positive", [3.0, "batch"])
def test_a_token_that_weighs_two_counts_as_two(positive: float | str) -> None:
    logit, label = torch.randn(1, 4), torch.tensor([[True, False, True, False]])
    weight = torch.tensor([[1.0, 2.0, 1.0, 0.0]])
    twice = [0, 1, 1, 2]
    loss = BinaryCrossEntropy(positive)
    assert_close(
        loss(logit, label, weight), loss(logit[:, twice], label[:, twice], label.new_ones(1, 4))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryCrossEntropy(0.0), "positive_weight=0.0"),
        (lambda: FocalLoss(0.5), "gamma=0.5"),
        (lambda: FocalLoss(2.0, 1.5), "alpha=1.5"),
    ],
)
def test_senseless_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_weighs_each_event(smoothing: float) -> None:
    logit, label = torch.randn(5, 3), torch.tensor([0, 2, 1, 2, 0])
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0, 3.0])
    terms = []
    for row, true, w in zip(logit.tolist(), label.tolist(), weight.tolist(), strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        target = [smoothing / 3 + (1 - smoothing) * (c == true) for c in range(3)]
        terms.append(-w * sum(t * (x - log_sum) for t, x in zip(target, row, strict=True)))
    ours = CrossEntropy(smoothing)(logit, label, weight)
    assert_close(ours, torch.tensor(sum(terms) / 6.5))


def test_cross_entropy_of_events_without_weight_is_zero() -> None:
    logit = torch.randn(2, 3, requires_grad=True)
    loss = CrossEntropy()(logit, torch.tensor([0, 1]), torch.zeros(2))
    loss.backward()
    assert loss == 0
    assert (logit.grad == 0).all()


def test_cross_entropy_refuses_to_smooth_everything() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing=1.0 must be at least 0 and below 1"):
        CrossEntropy(1.0)
