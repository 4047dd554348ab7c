"""Losses for the question whether a query has found an object, and of which class."""

# B events, M queries, C classes

import torch
from torch import Tensor
from torch.nn import functional as F

from hepattn.ops.distributed import weighted_mean


def object_bce(
    logit: Tensor, matched: Tensor, query_valid: Tensor, no_object_weight: float = 1.0
) -> Tensor:
    """Compute the binary cross-entropy of the real queries, averaged by their weights.

    Args:
        logit: Scores before the sigmoid that a query has found an object (B, M).
        matched: True for queries that have a target (B, M).
        query_valid: True for real queries (B, M).
        no_object_weight: Weight of the queries that have none.

    Returns:
        A scalar; zero for a batch without real queries.
    """
    loss = F.binary_cross_entropy_with_logits(
        logit.float().masked_fill(~query_valid, 0), matched.float(), reduction="none"
    )  # (B, M)
    return weighted_mean(loss, _query_weight(matched, query_valid, no_object_weight))


def object_cross_entropy(
    logits: Tensor, target_class: Tensor, query_valid: Tensor, no_object_weight: float = 1.0
) -> Tensor:
    """Compute the cross-entropy of the real queries' classes, averaged by their weights.

    Args:
        logits: Scores before the softmax of C classes and of no object, which comes last
            (B, M, C+1).
        target_class: Class of each query's target; C for queries that have none (B, M).
        query_valid: True for real queries (B, M).
        no_object_weight: Weight of the queries that have none.

    Returns:
        A scalar; zero for a batch without real queries.
    """
    no_object = logits.shape[2] - 1
    logits = logits.float().masked_fill(~query_valid.unsqueeze(2), 0)  # (B, M, C+1)
    target_class = target_class.where(query_valid, no_object)  # (B, M)
    loss = F.cross_entropy(logits.mT, target_class, reduction="none")  # (B, M)
    return weighted_mean(
        loss, _query_weight(target_class != no_object, query_valid, no_object_weight)
    )


def _query_weight(matched: Tensor, query_valid: Tensor, no_object_weight: float) -> Tensor:
    return torch.where(matched, 1.0, no_object_weight) * query_valid  # (B, M)
