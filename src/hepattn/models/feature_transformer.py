"""FT-Transformer: the columns of an event are tokens that see each other (arXiv:2106.11959)."""

# B events, F columns, D features

import torch
from torch import Tensor, nn

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions, FeatureEmbedding
from hepattn.nn.first_block import FirstBlock
from hepattn.nn.packing import Packing
from hepattn.nn.particle_block import BlockOptions, ParticleBlock
from hepattn.ops.attention import Full, make_plan

BLOCK = BlockOptions(
    style="prenorm",
    attention=AttentionOptions(num_heads=8, head_dim=16, bias=False, dropout=0.1),
    activation="geglu",
    activation_dropout=0.1,
    dropout=0.0,
)
TOKENS = EmbeddingOptions(reduction="none")


class FeatureTransformer(nn.Module):
    """Embed each column of the event, let them see each other, classify what a class token learns.

    Only columns of the event are read; objects are ignored.

    Args:
        schema: What an event consists of.
        num_outputs: Number of logits O.
        dim: Number of features D.
        depth: Number of blocks.
        block: What the blocks share.
        embedding: How columns become tokens; with ``reduction`` none.
        use_cls_token: Whether a class token is classified; else the mean of the columns' tokens.
        remove_first_attn_residual: Whether the first block's attention replaces the tokens instead
            of being added to them.
        remove_first_attn_layernorm: Whether there is no norm before the first block's attention.

    Raises:
        ValueError: If the schema has no columns of the event, the embedding merges them, or there
            is no block.
    """

    no_weight_decay = ("class_token",)

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        dim: int = 32,
        depth: int = 6,
        block: BlockOptions = BLOCK,
        embedding: EmbeddingOptions = TOKENS,
        use_cls_token: bool = True,
        remove_first_attn_residual: bool = False,
        remove_first_attn_layernorm: bool = False,
    ) -> None:
        super().__init__()
        features = schema.require_events("FeatureTransformer")
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if embedding.reduction != "none":
            raise ValueError(
                f"embedding.reduction={embedding.reduction!r} would leave one token of all columns "
                "for attention to look at; use 'none'"
            )
        self.embedding = FeatureEmbedding(features, dim, embedding, "events")
        token = nn.Parameter(torch.randn(dim)) if use_cls_token else None
        self.register_parameter("class_token", token)
        first = FirstBlock(
            dim,
            block,
            has_residual=not remove_first_attn_residual,
            has_norm=not remove_first_attn_layernorm,
        )
        self.blocks = nn.ModuleList([first, *(ParticleBlock(dim, block) for _ in range(depth - 1))])
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, num_outputs))

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Classify the events.

        Args:
            events: Raw columns of the events (B, F).
            vectors: Four-vectors of the objects (B, N, 4); not used.
            valid: True for real objects (B, N); not used.
            *objects: Raw columns of each kind of object; not used.

        Returns:
            Logits (B, O).
        """
        x = self.embedding(events)  # (B, F, D)
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)
        B, num_tokens, _ = x.shape
        plan = make_plan(Full(), torch.ones(B, num_tokens, dtype=torch.bool, device=x.device))
        packing = Packing(None, B, num_tokens)
        x = x.flatten(0, 1)  # (B tokens, D)
        for block in self.blocks:
            x = block(x, plan, packing, None)
        x = x.unflatten(0, (B, num_tokens))  # (B, tokens, D)
        return self.head(x.mean(1) if self.class_token is None else x[:, 0])
