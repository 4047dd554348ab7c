"""Cross-attention as a step of k-means: a query becomes the mean of the tokens nearest to it."""

# B events, M queries, N tokens, D features

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

    def forward(self, x: Tensor, plan: Plan, context: Tensor) -> Tensor:
        """Find the means.

        Args:
            x: Queries (B, M, D); only their number matters.
            plan: Which tokens each query sees.
            context: Tokens (B, N, D).

        Returns:
            The update of the queries (B, M, D).
        """
        values = self.value(context).unsqueeze(1)  # (B, 1, N, D)
        q, k = values.new_zeros(x.shape[0], 1, x.shape[1], 1), values.new_zeros(values.shape)
        q = q.expand(*q.shape[:-1], values.shape[-1])  # equal scores: (B, 1, M, D)
        return self.out(attention(q, k, values, plan=plan).squeeze(1))
