"""Losses of pytorch_optimizer against the package itself."""

from collections.abc import Callable

import pytest
import torch
from pytorch_optimizer import get_supported_loss_functions
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.losses.package import OptimizerLoss
from losses.event_cases import events, loop

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
        (lambda: OptimizerLoss("HingeLoss"), "'HingeLoss'.*is not one of them"),
        (
            lambda: OptimizerLoss("FocalLoss", {"smooth": 1}),
            r"has no option \['smooth'\] here",
        ),
        (lambda: OptimizerLoss("BCELoss", {"reduction": "sum"}), r"no option \['reduction'\] here"),
        (lambda: OptimizerLoss("LDAMLoss"), r"LDAMLoss needs \['num_class_list'\]"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
