"""Focal losses of events against loops and each other."""

import math

import pytest
import torch
from torch.testing import assert_close

from hepattn.losses.classification import CrossEntropy
from hepattn.losses.event import EventBinaryCrossEntropy, EventLoss
from hepattn.losses.focal import MulticlassFocal, SigmoidFocal

SHAPES = pytest.mark.parametrize(("gamma", "smoothing"), [(2.0, 0.0), (1.5, 0.2), (0.0, 0.1)])


@SHAPES
def test_sigmoid_focal_is_that_of_a_loop(gamma: float, smoothing: float) -> None:
    logit, label = 2 * torch.randn(5), torch.tensor([0, 1, 1, 0, 1])
    expected = []
    for x, y in zip(logit.tolist(), label.tolist(), strict=True):
        p, t = 1 / (1 + math.exp(-x)), y * (1 - smoothing) + smoothing / 2
        p_true = p * t + (1 - p) * (1 - t)
        cross_entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
        expected.append(cross_entropy * (1 - p_true) ** gamma)
    loss = SigmoidFocal(gamma, smoothing)
    assert_close(loss.per_event(logit[:, None], label), torch.tensor(expected))


@SHAPES
def test_multiclass_focal_is_that_of_a_loop(gamma: float, smoothing: float) -> None:
    logit, label = 2 * torch.randn(5, 4), torch.tensor([0, 3, 1, 2, 1])
    expected = []
    for row, y in zip(logit.tolist(), label.tolist(), strict=True):
        total = sum(map(math.exp, row))
        p = [math.exp(x) / total for x in row]
        t = [smoothing / 4 + (1 - smoothing) * (c == y) for c in range(4)]
        p_true = sum(a * b for a, b in zip(t, p, strict=True))
        cross_entropy = -sum(a * math.log(b) for a, b in zip(t, p, strict=True))
        expected.append(cross_entropy * (1 - p_true) ** gamma)
    assert_close(MulticlassFocal(gamma, smoothing).per_event(logit, label), torch.tensor(expected))


@SHAPES
def test_both_agree_on_two_classes(gamma: float, smoothing: float) -> None:
    logit, label = 3 * torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    binary = SigmoidFocal(gamma, smoothing).per_event(logit[:, 1:] - logit[:, :1], label)
    assert_close(MulticlassFocal(gamma, smoothing).per_event(logit, label), binary)


@pytest.mark.parametrize(
    ("focal", "plain", "num_outputs"),
    [
        (SigmoidFocal(0.0), EventBinaryCrossEntropy(), 1),
        (MulticlassFocal(0.0, 0.3), CrossEntropy(0.3), 3),
    ],
)
def test_gamma_zero_is_cross_entropy(focal: EventLoss, plain: EventLoss, num_outputs: int) -> None:
    logit, label = torch.randn(6, num_outputs), torch.tensor([0, 1, 1, 0, 1, 0])
    weight = torch.rand(6)
    assert_close(focal(logit, label, weight), plain(logit, label, weight))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_huge_scores_have_finite_losses_and_gradients(gamma: float, smoothing: float) -> None:
    label = torch.tensor([0, 1, 0, 1])
    logit = torch.tensor([[1e4, 0.0], [1e4, 0.0], [0.0, 200.0], [0.0, 200.0]], requires_grad=True)
    for loss, x in (
        (MulticlassFocal(gamma, smoothing), logit),
        (SigmoidFocal(gamma, smoothing), logit[:, :1] - logit[:, 1:]),
    ):
        answer = loss(x, label, torch.ones(4))
        (gradient,) = torch.autograd.grad(answer, logit)
        assert answer.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("cls", [SigmoidFocal, MulticlassFocal])
@pytest.mark.parametrize(
    ("options", "message"), [({"gamma": 0.5}, "gamma=0.5"), ({"smoothing": 1.0}, "smoothing=1.0")]
)
def test_senseless_options_are_refused(
    cls: type[EventLoss], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**options)
