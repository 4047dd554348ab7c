"""Losses for masks: which tokens belong to an object.

Each loss comes twice: for K matched pairs of a query and a target, and as the cost of all pairs
of an event, by matrix products that never hold a number per query, target and token. Both compute
in float32, also under autocast. Padded tokens have no influence.
"""

# B events, M queries, P targets, N tokens, K matched pairs

import torch
from torch import Tensor
from torch.nn import functional as F

from hepattn.losses.classification import check_focal


def mask_bce(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the binary cross-entropy of matched masks, averaged over the event's real tokens.

    Args:
        logit: Scores of the tokens before the sigmoid (K, N).
        target: True for the tokens of the target (K, N).
        valid: True for the real tokens of the pair's event (K, N).

    Returns:
        The loss of each pair (K); zero without real tokens.
    """
    return _mean_over_real(_cross_entropy(_signed(logit, target, valid)), valid)


def mask_focal(
    logit: Tensor, target: Tensor, valid: Tensor, gamma: float = 2.0, alpha: float | None = None
) -> Tensor:
    """Compute the focal loss of matched masks, averaged over the event's real tokens.

    It is cross-entropy times ``(1 - p_true)^gamma`` (arXiv:1708.02002).

    Args:
        logit: Scores of the tokens before the sigmoid (K, N).
        target: True for the tokens of the target (K, N).
        valid: True for the real tokens of the pair's event (K, N).
        gamma: How strongly well classified tokens are weighed down.
        alpha: Weight of the target's tokens; the others weigh ``1 - alpha``. No weights by
            default.

    Returns:
        The loss of each pair (K); zero without real tokens.

    Raises:
        ValueError: If an option is out of range.
    """
    check_focal(gamma, alpha)
    loss = _focal(_signed(logit, target, valid), gamma)
    if alpha is not None:
        loss = loss * torch.where(target, alpha, 1 - alpha)
    return _mean_over_real(loss, valid)


def mask_dice(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the dice loss of matched masks: ``1 - (2 sum pt + 1) / (sum p + sum t + 1)``.

    Args:
        logit: Scores of the tokens before the sigmoid (K, N).
        target: True for the tokens of the target (K, N).
        valid: True for the real tokens of the pair's event (K, N).

    Returns:
        The loss of each pair (K).
    """
    probability, label = _probability(logit, valid), (target & valid).float()
    overlap = (probability * label).sum(1)
    return 1 - (2 * overlap + 1) / (probability.sum(1) + label.sum(1) + 1)


def mask_iou(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the intersection over union of predicted and true masks.

    Args:
        logit: Scores of the tokens; those with a probability of at least one half are in the
            predicted mask (K, N).
        target: True for the tokens of the target (K, N).
        valid: True for the real tokens of the pair's event (K, N).

    Returns:
        (K) without gradient; zero where both masks are empty.
    """
    predicted = (logit >= 0) & valid
    label = target & valid
    return (predicted & label).sum(1) / (predicted | label).sum(1).clamp(min=1)


def mask_bce_cost(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute `mask_bce` of all pairs.

    Args:
        logit: Scores of the tokens of each query before the sigmoid (B, M, N).
        target: True for the tokens of each target (B, P, N).
        valid: True for real tokens (B, N).

    Returns:
        (B, M, P)
    """
    x = _real(logit, valid.unsqueeze(1))  # (B, M, N)
    return _mean_cost(_cross_entropy(x), _cross_entropy(-x), target, valid)


def mask_focal_cost(
    logit: Tensor, target: Tensor, valid: Tensor, gamma: float = 2.0, alpha: float | None = None
) -> Tensor:
    """Compute `mask_focal` of all pairs; shapes as in `mask_bce_cost`.

    Args:
        logit: Scores of the tokens of each query before the sigmoid (B, M, N).
        target: True for the tokens of each target (B, P, N).
        valid: True for real tokens (B, N).
        gamma: As in `mask_focal`.
        alpha: As in `mask_focal`.

    Returns:
        (B, M, P)

    Raises:
        ValueError: If an option is out of range.
    """
    check_focal(gamma, alpha)
    x = _real(logit, valid.unsqueeze(1))  # (B, M, N)
    inside, outside = _focal(x, gamma), _focal(-x, gamma)
    if alpha is not None:
        inside, outside = alpha * inside, (1 - alpha) * outside
    return _mean_cost(inside, outside, target, valid)


def mask_dice_cost(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute `mask_dice` of all pairs; arguments and result as in `mask_bce_cost`."""
    probability = _probability(logit, valid.unsqueeze(1))  # (B, M, N)
    label = target & valid.unsqueeze(1)  # (B, P, N)
    size = probability.sum(2).unsqueeze(2) + label.sum(2).unsqueeze(1)  # (B, M, P)
    return 1 - (2 * _sum_over_targets(probability, label) + 1) / (size + 1)


def _real(logit: Tensor, valid: Tensor) -> Tensor:
    return logit.float().masked_fill(~valid, 0)


def _signed(logit: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return scores that are high where the answer is right."""
    x = _real(logit, valid)
    return torch.where(target, x, -x)


def _probability(logit: Tensor, valid: Tensor) -> Tensor:
    return _real(logit, valid).sigmoid() * valid


def _cross_entropy(signed: Tensor) -> Tensor:
    return -F.logsigmoid(signed)


def _focal(signed: Tensor, gamma: float) -> Tensor:
    return _cross_entropy(signed) * torch.sigmoid(-signed) ** gamma


def _mean_over_real(loss: Tensor, valid: Tensor) -> Tensor:
    return (loss * valid).sum(1) / valid.sum(1).clamp(min=1)


def _mean_cost(inside: Tensor, outside: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Average over the real tokens what each token costs inside and outside of a target.

    Args:
        inside: Loss of each token if it belongs to the target (B, M, N).
        outside: Loss of each token if it does not (B, M, N).
        target: True for the tokens of each target (B, P, N).
        valid: True for real tokens (B, N).

    Returns:
        (B, M, P)
    """
    real = valid.unsqueeze(1)  # (B, 1, N)
    change = _sum_over_targets(inside - outside, target & real)  # (B, M, P)
    total = (outside * real).sum(2, keepdim=True) + change  # (B, M, P)
    return total / real.sum(2, keepdim=True).clamp(min=1)


def _sum_over_targets(x: Tensor, label: Tensor) -> Tensor:
    """Sum x (B, M, N) over the tokens of each target (B, P, N).

    Returns:
        (B, M, P), which lies in memory target by target, as the assignment reads it.
    """
    with torch.autocast(x.device.type, enabled=False):
        return (label.float() @ x.mT).mT
