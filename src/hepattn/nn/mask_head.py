"""What a query says about its object: whether there is one, and which tokens are its own."""

# B events, M queries, N tokens, D features, R parameters

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.nn.dense import Dense


class Detections(NamedTuple):
    """The answers of the queries of a batch.

    Attributes:
        object_logit: Score that the query has found an object (B, M).
        mask_logit: Score that a token belongs to the query's object (B, M, N).
        iou_logit: Score of the expected overlap of the mask with the object's tokens, as
            intersection over union (B, M); None without such a head.
        parameters: Parameters of the object (B, M, R); None without such a head.
    """

    object_logit: Tensor
    mask_logit: Tensor
    iou_logit: Tensor | None = None
    parameters: Tensor | None = None


class MaskHead(nn.Module):
    """Compare each query with each token: mask logits are ``<Dense(query), token> / sqrt(D)``.

    As in MaskFormer (arXiv:2107.06278).

    Args:
        dim: Number of features D.
        num_parameters: How many parameters of its object a query estimates.
        iou: Whether a query estimates how good its mask is.
    """

    def __init__(self, dim: int, num_parameters: int = 0, iou: bool = False) -> None:
        super().__init__()
        self.object = Dense(dim, 1)
        self.mask = Dense(dim, dim)
        self.parameters_head = Dense(dim, num_parameters) if num_parameters else None
        self.iou = Dense(dim, 1) if iou else None

    def forward(self, queries: Tensor, tokens: Tensor) -> Detections:
        """Answer.

        Args:
            queries: Queries (B, M, D), normalised.
            tokens: Tokens (B, N, D), normalised.
        """
        mask = self.mask(queries) * queries.shape[-1] ** -0.5  # (B, M, D)
        return Detections(
            object_logit=self.object(queries).squeeze(-1),
            mask_logit=torch.einsum("bmd,bnd->bmn", mask, tokens),
            iou_logit=None if self.iou is None else self.iou(queries).squeeze(-1),
            parameters=None if self.parameters_head is None else self.parameters_head(queries),
        )
