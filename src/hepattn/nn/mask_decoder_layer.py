"""One layer of a mask decoder: queries look at tokens, at each other, and tokens look back."""

# B events, M queries, N tokens, D features

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.kmeans_attention import KMeansAttention
from hepattn.nn.moe import apply_dense
from hepattn.nn.norm import NormName, make_norm
from hepattn.nn.rotary import Rotation
from hepattn.ops.attention import Plan


@dataclass(frozen=True)
class Stands:
    """Where the queries or the tokens of a batch stand.

    Args:
        position: Encoding that is added where queries and keys are made (B, N, D).
        rotary: Rotation of queries and keys.
    """

    position: Tensor | None = None
    rotary: Rotation | None = None


class MaskDecoderLayer(nn.Module):
    """Cross-attention, dense net and self-attention, each a branch with a norm before it.

    Args:
        dim: Number of features D.
        attention: Heads and other options of the attention layers.
        dense: Builds a dense net from the number of features.
        norm: Which norm.
        kmeans: Whether the cross-attention is a step of k-means.
        update_tokens: Whether the tokens, too, are updated: they attend to the queries.
    """

    def __init__(
        self,
        dim: int,
        attention: AttentionOptions = AttentionOptions(),  # noqa: B008 (frozen)
        dense: Callable[[int], nn.Module] = Dense,
        norm: NormName = "LayerNorm",
        kmeans: bool = False,
        update_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.cross_norm = None if kmeans else make_norm(norm, dim)
        self.cross_attention = KMeansAttention(dim) if kmeans else Attention(dim, attention)
        self.dense_norm = make_norm(norm, dim)
        self.dense = dense(dim)
        self.self_norm = make_norm(norm, dim)
        self.self_attention = Attention(dim, attention)
        self.token_attention = None
        if update_tokens:
            self.token_norm = make_norm(norm, dim)
            self.query_norm = make_norm(norm, dim)
            self.token_attention = Attention(dim, attention)
            self.token_dense_norm = make_norm(norm, dim)
            self.token_dense = dense(dim)

    def forward(
        self,
        queries: Tensor,
        tokens: Tensor,
        cross_plan: Plan,
        self_plan: Plan,
        query_stands: Stands,
        token_stands: Stands,
        offset_bias: Tensor | None = None,
    ) -> Tensor:
        """Update the queries.

        Args:
            queries: Queries (B, M, D).
            tokens: Tokens (B, N, D), normalised.
            cross_plan: Which tokens each query sees.
            self_plan: Which queries each query sees.
            query_stands: Where the queries stand.
            token_stands: Where the tokens stand.
            offset_bias: Score bias of each offset from a query's centre to a token
                (H or 1, 2K + 1).

        Returns:
            (B, M, D)
        """
        if isinstance(self.cross_attention, KMeansAttention):
            queries = queries + self.cross_attention(cross_plan, tokens)
        else:
            update, _ = self.cross_attention(
                self.cross_norm(queries),
                cross_plan,
                context=tokens,
                offset_bias=offset_bias,
                position=query_stands.position,
                context_position=token_stands.position,
                rotary=query_stands.rotary,
                context_rotary=token_stands.rotary,
            )
            queries = queries + update
        y = self.dense_norm(queries)
        queries = queries + apply_dense(self.dense, y, self_plan.query_valid)
        update, _ = self.self_attention(
            self.self_norm(queries),
            self_plan,
            position=query_stands.position,
            rotary=query_stands.rotary,
        )
        return queries + update

    def update_tokens(
        self,
        tokens: Tensor,
        queries: Tensor,
        plan: Plan,
        query_stands: Stands,
        token_stands: Stands,
    ) -> Tensor:
        """Let the tokens look at the queries.

        Args:
            tokens: Tokens (B, N, D).
            queries: Queries (B, M, D).
            plan: Which queries each token sees.
            query_stands: Where the queries stand.
            token_stands: Where the tokens stand.

        Returns:
            (B, N, D)
        """
        update, _ = self.token_attention(
            self.token_norm(tokens),
            plan,
            context=self.query_norm(queries),
            position=token_stands.position,
            context_position=query_stands.position,
            rotary=token_stands.rotary,
            context_rotary=query_stands.rotary,
        )
        tokens = tokens + update
        y = self.token_dense_norm(tokens)
        return tokens + apply_dense(self.token_dense, y, plan.query_valid)
