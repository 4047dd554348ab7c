"""Cross-attention as a step of k-means: a query becomes the mean of the tokens nearest to it."""

# B events, M queries, N tokens, D features

import torch
from torch import Tensor, nn

from hepattn.ops.attention import Plan, attention


class KMeansAttention(nn.Module):
    """Average the values of the tokens of each query's cluster (arXiv:2207.04044).

    The plan is restricted to the clusters: each token is seen by the one query that it is nearest
    to. A query without tokens gets nothing but the bias of the output.

    Args:
        dim: Number of features D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, plan: Plan, context: Tensor) -> Tensor:
        """Find the means.

        Args:
            plan: Which tokens each of M queries sees.
            context: Tokens (B, N, D).

        Returns:
            The update of the queries (B, M, D).
        """
        values = self.value(context).unsqueeze(1)  # (B, 1, N, D)
        q = values.new_zeros(len(values), 1, plan.query_valid.shape[1], values.shape[-1])
        k = torch.zeros_like(values)  # all scores are equal
        return self.out(attention(q, k, values, plan=plan).squeeze(1))
