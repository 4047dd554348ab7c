"""What a query says about its object: whether there is one, and which tokens are its own."""

# B events, M queries, N tokens, D features, R parameters

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.nn.attention import AttentionOptions, start_at_positions
from hepattn.nn.dense import Dense
from hepattn.nn.rotary import Rotation, rotate


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


class PositionScore(nn.Module):
    """Score each pair of a query and a token by their content and where they stand.

    The mean of the scores that the heads of an attention layer would give, with queries and keys
    turned by a rotary encoding. With `HelixRotary` a query can so claim the hits along a helix
    through its own hit, by choosing the head of its curvature.

    Args:
        dim: Number of features D.
        options: Heads, and the scores of equal positions at the start of training.
    """

    def __init__(self, dim: int, options: AttentionOptions) -> None:
        super().__init__()
        self.num_heads = options.num_heads
        self.head_dim = options.features_per_head(dim)
        self.query = nn.Linear(dim, self.num_heads * self.head_dim)
        self.key = nn.Linear(dim, self.num_heads * self.head_dim)
        start = options.position_init or 0.0
        if start:
            for bias in (self.query.bias, self.key.bias):
                start_at_positions(bias, self.head_dim, start)
        # Half of what equal positions score, so that a query does not begin by claiming it all.
        self.offset = nn.Parameter(torch.tensor(-start / 2))

    def forward(
        self, queries: Tensor, tokens: Tensor, query_rotation: Rotation, token_rotation: Rotation
    ) -> Tensor:
        """Score (B, M, N) the queries (B, M, D) and tokens (B, N, D)."""
        q, k = (
            rotate(layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2), rotation)
            for layer, x, rotation in (
                (self.query, queries, query_rotation),
                (self.key, tokens, token_rotation),
            )
        )  # (B, H, M, E), (B, H, N, E)
        q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))  # (B, M, H E), (B, N, H E)
        return q @ k.mT * (self.head_dim**-0.5 / self.num_heads) + self.offset


class MaskHead(nn.Module):
    """Compare each query with each token: mask logits are ``<Dense(query), token> / sqrt(D)``.

    As in MaskFormer (arXiv:2107.06278).

    Args:
        dim: Number of features D.
        num_parameters: How many parameters of its object a query estimates.
        iou: Whether a query estimates how good its mask is.
        by_position: Heads of a `PositionScore` that is added to the mask logits; none by default.
    """

    def __init__(
        self,
        dim: int,
        num_parameters: int = 0,
        iou: bool = False,
        by_position: AttentionOptions | None = None,
    ) -> None:
        super().__init__()
        self.object = Dense(dim, 1)
        self.mask = Dense(dim, dim)
        self.position_score = None if by_position is None else PositionScore(dim, by_position)
        self.parameters_head = Dense(dim, num_parameters) if num_parameters else None
        self.iou = Dense(dim, 1) if iou else None

    def forward(
        self,
        queries: Tensor,
        tokens: Tensor,
        query_rotation: Rotation | None = None,
        token_rotation: Rotation | None = None,
    ) -> Detections:
        """Answer.

        Args:
            queries: Queries (B, M, D), normalised.
            tokens: Tokens (B, N, D), normalised.
            query_rotation: Rotation of the queries, for scores by position.
            token_rotation: Rotation of the tokens.
        """
        mask = self.mask(queries) * queries.shape[-1] ** -0.5  # (B, M, D)
        mask_logit = torch.einsum("bmd,bnd->bmn", mask, tokens)
        if self.position_score is not None:
            score = self.position_score(queries, tokens, query_rotation, token_rotation)
            mask_logit = mask_logit + score
        return Detections(
            object_logit=self.object(queries).squeeze(-1),
            mask_logit=mask_logit,
            iou_logit=None if self.iou is None else self.iou(queries).squeeze(-1),
            parameters=None if self.parameters_head is None else self.parameters_head(queries),
        )
