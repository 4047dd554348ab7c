"""Mask losses against loops over tokens, and costs against the losses of each pair."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.losses.mask import (
    mask_bce,
    mask_bce_cost,
    mask_dice,
    mask_dice_cost,
    mask_focal,
    mask_focal_cost,
    mask_iou,
)

LOSSES = {
    "bce": (mask_bce, mask_bce_cost, {}),
    "focal": (mask_focal, mask_focal_cost, {}),
    "weighted focal": (mask_focal, mask_focal_cost, {"gamma": 1.5, "alpha": 0.3}),
    "dice": (mask_dice, mask_dice_cost, {}),
}
Pairs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def pairs() -> Pairs:
    """Three pairs of masks of 5, 2 and 0 real tokens, with rubbish in the padding."""
    valid = torch.arange(6) < torch.tensor([[5], [2], [0]])
    logit = (3 * torch.randn(3, 6)).masked_fill(~valid, 1e4)
    target = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 0]]).bool()
    return logit, target, valid


def rows(logit: Tensor, target: Tensor, valid: Tensor) -> list[list[tuple[float, bool]]]:
    """List the probability and the target of each real token, pair by pair."""
    return [
        [(1 / (1 + math.exp(-x)), bool(t)) for x, t, real in zip(*row, strict=True) if real]
        for row in zip(logit, target, valid, strict=True)
    ]


def average(terms: list[float]) -> float:
    return sum(terms) / len(terms) if terms else 0.0


def test_cross_entropy_is_the_mean_over_real_tokens(pairs: Pairs) -> None:
    expected = [average([-math.log(p if t else 1 - p) for p, t in row]) for row in rows(*pairs)]
    assert_close(mask_bce(*pairs), torch.tensor(expected))


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (1.5, 0.3), (0.0, None)])
def test_focal_loss_weighs_well_classified_tokens_down(
    gamma: float, alpha: float | None, pairs: Pairs
) -> None:
    expected = []
    for row in rows(*pairs):
        terms = []
        for p, t in row:
            p_true = p if t else 1 - p
            weight = 1 if alpha is None else alpha if t else 1 - alpha
            terms.append(-weight * (1 - p_true) ** gamma * math.log(p_true))
        expected.append(average(terms))
    assert_close(mask_focal(*pairs, gamma, alpha), torch.tensor(expected))


def test_dice_counts_what_both_masks_share(pairs: Pairs) -> None:
    expected = []
    for row in rows(*pairs):
        shared = sum(p for p, t in row if t)
        sizes = sum(p for p, _ in row) + sum(t for _, t in row)
        expected.append(1 - (2 * shared + 1) / (sizes + 1))
    assert_close(mask_dice(*pairs), torch.tensor(expected))


def test_iou_is_of_the_sets_of_real_tokens() -> None:
    logit = torch.tensor([[1.0, 0.0, -1.0, 9.0], [-1.0, -1.0, 9.0, 9.0]])
    target = torch.tensor([[True, False, True, True], [False, False, True, False]])
    valid = torch.tensor([[True, True, True, False], [True, True, False, False]])
    assert_close(mask_iou(logit, target, valid), torch.tensor([1 / 3, 0.0]))


@pytest.mark.parametrize("name", LOSSES)
def test_cost_of_a_pair_is_its_loss(name: str) -> None:
    loss, cost, options = LOSSES[name]
    valid = torch.arange(7) < torch.tensor([[7], [4], [0]])
    logit = 8 * torch.randn(3, 5, 7)
    target = torch.rand(3, 4, 7) < 0.4  # of overlapping masks, also in the padding
    answer = cost(logit, target, valid, **options)
    assert answer.shape == (3, 5, 4)
    for event in range(3):
        for query in range(5):
            every = target[event], valid[event].expand(4, -1)
            expected = loss(logit[event, query].expand(4, -1), *every, **options)
            assert_close(answer[event, query], expected)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_has_no_influence_and_no_gradient(name: str, pairs: Pairs) -> None:
    loss, cost, options = LOSSES[name]
    logit, target, valid = pairs
    logit.requires_grad_()
    garbage = torch.where(valid, logit, torch.nan), target ^ ~valid, valid
    answer = loss(*garbage, **options)
    assert torch.equal(answer, loss(logit, target, valid, **options))
    answer.sum().backward()
    assert (logit.grad[~valid] == 0).all()
    assert (logit.grad[valid] != 0).all()
    logit, target, valid = garbage
    assert_close(cost(logit.unsqueeze(1), target.unsqueeze(1), valid, **options)[:, 0, 0], answer)


@pytest.mark.parametrize("name", LOSSES)
def test_huge_scores_have_finite_losses_and_gradients(name: str) -> None:
    loss, _, options = LOSSES[name]
    logit = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    target, valid = torch.tensor([[True, True, False, False]]), torch.ones(1, 4).bool()
    answer = loss(logit, target, valid, **options)
    answer.sum().backward()
    assert answer.isfinite().all()
    assert logit.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_computes_in_float32(name: str) -> None:
    loss, cost, options = LOSSES[name]
    logit, target = torch.randn(2, 3, 50), torch.rand(2, 3, 50) < 0.3
    valid = torch.ones(2, 50).bool()
    single = logit[0], target[0], valid[:1].expand(3, -1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(*single, **options), cost(logit, target, valid, **options)
    outside = loss(*single, **options), cost(logit, target, valid, **options)
    assert_close(inside, outside, rtol=0, atol=0)


@pytest.mark.parametrize("focal", [mask_focal, mask_focal_cost])
@pytest.mark.parametrize(
    ("options", "message"), [({"gamma": 0.5}, "gamma=0.5"), ({"alpha": 1.5}, "alpha=1.5")]
)
def test_senseless_options_are_refused(
    focal: Callable[..., Tensor], options: dict[str, float], message: str
) -> None:
    one = torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match=message):
        focal(one, one.bool(), one[0].bool(), **options)
