"""From the columns of an event's objects, of all kinds, to one set of tokens."""

# B events, F columns, P slots of a kind, N slots of all kinds, D features

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import (
    EmbeddingOptions,
    FeatureEmbedding,
    PostEmbedding,
    PostEmbeddingOptions,
)
from hepattn.nn.fusion import EmbeddingFusion, EmbeddingFusionOptions


@dataclass(frozen=True)
class ObjectEmbeddingOptions:
    """How objects become tokens.

    Args:
        embedding: How the columns of each kind are embedded. What comes after the embedding is
            shared by all kinds.
        add_particle_types: Whether a learned vector for each kind of objects is added to the
            embeddings, before what comes after them.
        flat_embedding: How the columns of the event are embedded to be fused with its objects; None
            to leave them out.
        flat_fusion: How they are fused.

    Raises:
        ValueError: If an option has no effect or gives no vectors.
    """

    embedding: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    add_particle_types: bool = False
    flat_embedding: EmbeddingOptions | None = None
    flat_fusion: EmbeddingFusionOptions = field(default_factory=EmbeddingFusionOptions)

    def __post_init__(self) -> None:
        if self.embedding.reduction == "none":
            raise ValueError(
                "embedding.reduction='none' leaves several vectors for an object; choose another"
            )
        if self.flat_embedding is None:
            if self.flat_fusion != EmbeddingFusionOptions():
                raise ValueError("flat_fusion has no effect without flat_embedding; set that too")
            return
        mode, reduction = self.flat_fusion.mode, self.flat_embedding.reduction
        if self.flat_embedding.disable_embeddings:
            raise ValueError("flat_embedding.disable_embeddings leaves nothing to be fused")
        if self.flat_fusion.has_attention and reduction not in ("mean", "none"):
            raise ValueError(
                f"flat_embedding.reduction={reduction!r} has no effect with flat_fusion.mode="
                f"{mode!r}, which looks at each column; use 'none'"
            )
        if not self.flat_fusion.has_attention and reduction == "none":
            raise ValueError(
                f"flat_embedding.reduction='none' leaves several vectors for an event, which "
                f"flat_fusion.mode={mode!r} cannot fuse; choose 'attn' or another reduction"
            )


class ObjectEmbedding(nn.Module):
    """Embed the objects of each kind and put all kinds into one set.

    Args:
        schema: What an event consists of.
        dim: Number of features D of a token.
        options: How.

    Raises:
        ValueError: If there are no objects, or no columns of the event where they are fused.
    """

    no_weight_decay = ("types",)

    def __init__(
        self,
        schema: EventSchema,
        dim: int,
        options: ObjectEmbeddingOptions = ObjectEmbeddingOptions(),
    ) -> None:
        super().__init__()
        name = type(self).__name__
        objects = schema.require_objects(name)
        self.num_slots = [schema.max_objects[kind] for kind in schema.kinds]  # P of each kind
        jagged_dim = dim
        self.flat = self.fusion = None
        self.flat_projection = nn.Identity()
        if options.flat_embedding is not None:
            flat_dim, jagged_dim = options.flat_fusion.dims(dim)
            self.fusion = EmbeddingFusion(dim, options.flat_fusion)
            flat_options = options.flat_embedding
            if options.flat_fusion.has_attention:
                flat_options = replace(flat_options, reduction="none")
            features = schema.require_events(f"{name} with flat_embedding")
            self.flat = FeatureEmbedding(features, flat_dim, flat_options)
            if self.flat.dim_out != flat_dim:  # of columns written one behind the other
                self.flat_projection = nn.Linear(self.flat.dim_out, flat_dim)
        each = replace(options.embedding, post=PostEmbeddingOptions())
        self.kinds = nn.ModuleList(
            FeatureEmbedding(features, jagged_dim, each, kind) for kind, features in objects.items()
        )
        self.register_parameter("types", None)
        if options.add_particle_types:
            self.types = nn.Parameter(0.02 * torch.randn(len(objects), jagged_dim))
            numbers = torch.arange(len(objects))
            kind_of_slot = numbers.repeat_interleave(torch.tensor(self.num_slots))  # (N)
            self.register_buffer("kind_of_slot", kind_of_slot, persistent=False)
        self.post = PostEmbedding(jagged_dim, options.embedding.post)

    def forward(self, events: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Embed.

        Args:
            events: Raw columns of the events (B, F); read if they are fused.
            valid: True for real objects (B, N).
            *objects: Raw columns of each kind (B, P, F of the kind).

        Returns:
            Tokens (B, N, D), one kind behind the other; zero at padded slots.

        Raises:
            RuntimeError: If the training split is needed and has not been seen.
        """
        parts = valid.split(self.num_slots, 1)  # (B, P) each
        tokens = [embed(x, real) for embed, x, real in zip(self.kinds, objects, parts, strict=True)]
        x = torch.cat(tokens, 1)  # (B, N, D)
        if self.types is not None:
            x = x + self.types[self.kind_of_slot]
        x = self.post(x, valid)
        if self.fusion is not None:
            x = self.fusion(self.flat_projection(self.flat(events)), x)
        return x.masked_fill(~valid.unsqueeze(-1), 0.0)
