"""Object losses against loops over the real queries."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.losses.object import object_bce, object_cross_entropy

VALID = torch.tensor([[True, True, True, False], [True, False, False, False]])
MATCHED = torch.tensor([[True, False, False, True], [True, True, False, True]])
CLASS = torch.tensor([[0, 2, 1, 0], [2, 1, 5, -3]])  # of two, 2 = no object; rubbish in padding


@pytest.mark.parametrize("weight", [1.0, 0.1, 0.0])
def test_cross_entropy_of_objects_is_averaged_by_weight(weight: float) -> None:
    logit = torch.randn(2, 4)
    total, weights = 0.0, 0.0
    for x, matched in zip(logit[VALID].tolist(), MATCHED[VALID].tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        total -= math.log(p) if matched else weight * math.log(1 - p)
        weights += 1 if matched else weight
    assert_close(object_bce(logit, MATCHED, VALID, weight), torch.tensor(total / weights))


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_cross_entropy_of_classes_applies_one_softmax(weight: float) -> None:
    logits = 3 * torch.randn(2, 4, 3)
    total, weights = 0.0, 0.0
    for x, index in zip(logits[VALID].tolist(), CLASS[VALID].tolist(), strict=True):
        factor = weight if index == 2 else 1
        total -= factor * math.log(math.exp(x[index]) / sum(map(math.exp, x)))
        weights += factor
    answer = object_cross_entropy(logits, CLASS, VALID, weight)
    assert_close(answer, torch.tensor(total / weights))
    theirs = F.cross_entropy(logits[VALID], CLASS[VALID], torch.tensor([1.0, 1.0, weight]))
    assert_close(answer, theirs)


def objects(logit: Tensor, valid: Tensor) -> Tensor:
    return object_bce(logit.squeeze(2), MATCHED, valid, 0.5)


def classes(logit: Tensor, valid: Tensor) -> Tensor:
    return object_cross_entropy(logit.expand(-1, -1, 3), CLASS, valid, 0.5)


@pytest.mark.parametrize("loss", [objects, classes])
def test_padded_queries_have_no_influence_and_none_no_loss(loss: Callable[..., Tensor]) -> None:
    logit = torch.randn(2, 4, 1)
    garbage = logit.masked_fill(~VALID.unsqueeze(2), torch.nan).requires_grad_()
    answer = loss(garbage, VALID)
    assert torch.equal(answer, loss(logit, VALID))
    answer.backward()
    assert (garbage.grad[~VALID] == 0).all()
    empty = loss(garbage, torch.zeros_like(VALID))
    assert empty == 0
    empty.backward()
    assert garbage.grad.isfinite().all()
