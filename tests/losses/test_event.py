"""Losses of events against loops in plain Python."""

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_optimizer import get_supported_loss_functions
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.losses.classification import CrossEntropy
from hepattn.losses.event import (
    EventBinaryCrossEntropy,
    EventLoss,
    EventSquaredError,
    OptimizerLoss,
)
from hepattn.losses.focal import MulticlassFocal, SigmoidFocal

TEMPERED = {"t1": 0.8, "t2": 1.3}
FITTING = {
    "BCELoss": ({}, 1),
    "bcefocalloss": ({"gamma": 1.5}, 1),
    "FocalLoss": ({"alpha": 0.5}, 1),
    "BinaryBiTemperedLogisticLoss": (TEMPERED, 1),
    "LovaszHingeLoss": ({}, 1),
    "BiTemperedLogisticLoss": (TEMPERED | {"label_smooth": 0.1}, 3),
    "FocalCosineLoss": ({"focal_weight": 0.3}, 3),
    "LDAMLoss": ({"num_class_list": [50, 20, 5]}, 3),
}
OURS = {
    "bce": (EventBinaryCrossEntropy, 1),
    "ce": (CrossEntropy, 3),
    "binary mse": (EventSquaredError, 1),
    "mse": (EventSquaredError, 3),
    "sigmoid focal": (SigmoidFocal, 1),
    "focal": (MulticlassFocal, 3),
    "package": (lambda **options: OptimizerLoss("FocalLoss", **options), 1),
}


def events(num_outputs: int) -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(6, num_outputs), torch.randint(max(num_outputs, 2), (6,))


def loop(loss: EventLoss, logit: Tensor, label: Tensor) -> list[float]:
    """Loss of each event in a batch of its own."""
    one = torch.ones(1)
    return [
        float(loss(logit[i : i + 1], label[i : i + 1], one.to(logit.dtype)))
        for i in range(len(logit))
    ]


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


@pytest.mark.parametrize("name", FITTING)
def test_package_says_which_losses_are_bounded(name: str) -> None:
    """One event of weight -1 whose output gets worse and worse."""
    params, num_outputs = FITTING[name]
    loss = OptimizerLoss(name, params, allow_negative_weights=True)
    logit = torch.zeros(1, num_outputs)
    label, weight = torch.tensor([0]), torch.tensor([-1.0])
    answers = []
    for size in (1e2, 1e4):
        logit[0, -1] = size
        answers.append(float(loss(logit, label, weight)))
    assert loss.bounded_below == (answers[1] > 2 * answers[0] - 1)
    if loss.bounded_below:
        assert OptimizerLoss(name, params)(logit, label, weight) == answers[1]


def test_bi_tempered_loss_is_bounded_only_below_temperature_one() -> None:
    assert not OptimizerLoss("BiTemperedLogisticLoss", {"t1": 1.0, "t2": 1.3}).bounded_below


@pytest.mark.parametrize("name", FITTING)
def test_package_loss_of_equal_weights_is_its_own_average(name: str) -> None:
    import pytorch_optimizer

    params, num_outputs = FITTING[name]
    logit, label = events(num_outputs)
    cls = next(c for n, c in vars(pytorch_optimizer).items() if n.lower() == name.lower())
    theirs: nn.Module = cls(**params)
    target = label if num_outputs > 1 else label[:, None].float()
    inputs = logit.sigmoid() if name.lower().startswith("bce") else logit
    ours = OptimizerLoss(name, params)
    assert_close(ours(logit, label, torch.ones(6)), theirs(inputs, target))


@pytest.mark.parametrize("name", FITTING)
def test_package_loss_weighs_each_event(name: str) -> None:
    params, num_outputs = FITTING[name]
    loss = OptimizerLoss(name, params)
    logit, label = events(num_outputs)
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0, 3.0, 1.0])
    logit.requires_grad_()
    answer = loss(logit, label, weight)
    answer.backward()
    terms = loop(loss, logit.detach(), label)
    expected = sum(w * x for w, x in zip(weight.tolist(), terms, strict=True)) / 7.5
    assert float(answer.detach()) == pytest.approx(expected, rel=1e-5)
    assert logit.grad.isfinite().all()


def test_package_hinge_is_the_hinge() -> None:
    logit, label = events(1)
    signs = 2 * label - 1
    expected = F.relu(1 - signs * logit.squeeze(1)).mean()
    assert_close(OptimizerLoss("lovaszhingeloss")(logit, label, torch.ones(6)), expected)


def test_every_loss_of_the_package_fits_or_is_refused() -> None:
    fitting = {name.lower() for name in FITTING}
    refused = set(get_supported_loss_functions()) - fitting
    assert refused == {"diceloss", "focaltverskyloss", "jaccardloss", "softf1loss", "tverskyloss"}
    for name in refused:
        with pytest.raises(ValueError, match=f"'{name}'.*compares sums over events"):
            OptimizerLoss(name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EventBinaryCrossEntropy("sum"), "normalise='sum'"),
        (lambda: OptimizerLoss("HingeLoss"), "'HingeLoss'.*is not one of them"),
        (
            lambda: OptimizerLoss("FocalLoss", {"smooth": 1}),
            r"has no option \['smooth'\] here",
        ),
        (lambda: OptimizerLoss("BCELoss", {"reduction": "sum"}), r"no option \['reduction'\] here"),
        (lambda: OptimizerLoss("LDAMLoss"), r"LDAMLoss needs \['num_class_list'\]"),
        (lambda: EventBinaryCrossEntropy().per_event(*events(3)), "one output, not for 3"),
        (lambda: CrossEntropy().per_event(*events(1)), "CrossEntropy needs one output for each"),
        (lambda: OptimizerLoss("FocalLoss").per_event(*events(3)), "one output, not for 3"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", OURS)
def test_autocast_computes_in_float32(name: str) -> None:
    make, num_outputs = OURS[name]
    logit, label = events(num_outputs)
    weight = torch.rand(6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = make()(logit, label, weight)
    assert_close(inside, make()(logit, label, weight), rtol=0, atol=0)
