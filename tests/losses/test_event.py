"""Losses of events against loops in plain Python."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from hepattn import losses
from hepattn.losses.classification import CrossEntropy
from hepattn.losses.event import (
    EventBinaryCrossEntropy,
    EventSquaredError,
)
from hepattn.losses.focal import MulticlassFocal, SigmoidFocal
from hepattn.losses.package import OptimizerLoss
from losses.event_cases import events, loop

OURS = {
    "bce": (EventBinaryCrossEntropy, 1),
    "ce": (CrossEntropy, 3),
    "binary mse": (EventSquaredError, 1),
    "mse": (EventSquaredError, 3),
    "sigmoid focal": (SigmoidFocal, 1),
    "focal": (MulticlassFocal, 3),
    "package": (lambda **options: OptimizerLoss("FocalLoss", **options), 1),
}


def test_binary_cross_entropy_is_that_of_a_loop() -> None:
    logit, label = events(1)
    expected = []
    for x, y in zip(logit.squeeze(1).tolist(), label.tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        expected.append(-math.log(p if y else 1 - p))
    assert loop(EventBinaryCrossEntropy(), logit, label) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_squared_error_is_that_of_the_scores_themselves(num_outputs: int) -> None:
    logit, label = events(num_outputs)
    expected = []
    for row, true in zip(logit.tolist(), label.tolist(), strict=True):
        target = [true] if num_outputs == 1 else [c == true for c in range(3)]
        terms = [(x - t) ** 2 for x, t in zip(row, target, strict=True)]
        expected.append(sum(terms) / num_outputs)
    assert loop(EventSquaredError(), logit, label) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("normalise", ["weights", "count"])
def test_weights_keep_their_sign_and_divide_as_told(name: str, normalise: str) -> None:
    make, num_outputs = OURS[name]
    logit, label = events(num_outputs)
    weight = torch.tensor([1.0, -0.5, 0.0, 2.0, 3.0, -1.0])
    loss = make(normalise=normalise, allow_negative_weights=True)
    terms = [w * x for w, x in zip(weight.tolist(), loop(loss, logit, label), strict=True)]
    expected = sum(terms) / (7.5 if normalise == "weights" else 6)
    assert float(loss(logit, label, weight)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_events_without_weight_or_label_have_no_influence(name: str) -> None:
    make, num_outputs = OURS[name]
    logit, label = events(num_outputs)
    label[1], weight = -1, torch.tensor([1.0, 5.0, 0.0, 2.0, 3.0, 1.0])
    rubbish = logit.clone()
    rubbish[1:3] = torch.nan
    rubbish.requires_grad_()
    answer = make()(rubbish, label, weight)
    answer.backward()
    keep = [0, 3, 4, 5]
    assert_close(answer, make()(logit[keep], label[keep], weight[keep]))
    assert (rubbish.grad[1:3] == 0).all()
    assert (rubbish.grad[keep] != 0).all()


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("normalise", ["weights", "count"])
def test_batch_without_weight_is_skipped_and_says_so(name: str, normalise: str) -> None:
    make, num_outputs = OURS[name]
    loss = make(normalise=normalise)
    logit, label = events(num_outputs)
    loss(logit, label, torch.ones(6))
    assert not loss.skipped
    logit[0] = torch.inf
    logit.requires_grad_()
    answer = loss(logit, label, torch.zeros(6))
    answer.backward()
    assert loss.skipped
    assert answer == 0
    assert (logit.grad == 0).all()


@pytest.mark.parametrize("name", OURS)
def test_unbounded_losses_refuse_negative_weights(name: str) -> None:
    make, num_outputs = OURS[name]
    weight = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"2 of 6 events.*not bounded below.*allow_negative"):
        make()(*events(num_outputs), weight)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EventBinaryCrossEntropy("sum"), "normalise='sum'"),
        (lambda: EventBinaryCrossEntropy().per_event(*events(3)), "one output, not for 3"),
        (lambda: CrossEntropy().per_event(*events(1)), "CrossEntropy needs one output for each"),
        (lambda: OptimizerLoss("FocalLoss").per_event(*events(3)), "one output, not for 3"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", OURS)
def test_negative_weights_may_be_validated(name: str) -> None:
    """After a training without weights, say."""
    make, num_outputs = OURS[name]
    logit, label = events(num_outputs)
    weight = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    allowed = make(allow_negative_weights=True)
    assert make().eval()(logit, label, weight) == allowed(logit, label, weight)


@pytest.mark.parametrize("name", [name for name in OURS if OURS[name][1] == 1])
def test_losses_of_two_classes_refuse_a_third_label(name: str) -> None:
    label = torch.tensor([0, 1, 2, 0, 1, -1])
    with pytest.raises(ValueError, match="labels 0 and 1, not for 2"):
        OURS[name][0]()(torch.zeros(6, 1), label, torch.ones(6))


def test_one_module_alone_loads_the_package() -> None:
    files = Path(losses.__file__).parent.glob("*.py")
    assert [file.stem for file in files if "import pytorch_optimizer" in file.read_text()] == [
        "package"
    ]


@pytest.mark.parametrize("name", OURS)
def test_autocast_computes_in_float32(name: str) -> None:
    make, num_outputs = OURS[name]
    logit, label = events(num_outputs)
    weight = torch.rand(6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = make()(logit, label, weight)
    assert_close(inside, make()(logit, label, weight), rtol=0, atol=0)
