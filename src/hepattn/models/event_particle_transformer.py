"""Particle Transformer for events: the objects of all kinds attend to each other with a pair bias.

Source: arXiv:2202.03772.
"""

# B events, N slots of all kinds, P slots of a kind, F columns, T real objects, D features

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.first_block import FirstBlock
from hepattn.nn.gathering import gather_objects
from hepattn.nn.object_embedding import ObjectEmbedding, ObjectEmbeddingOptions
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions
from hepattn.nn.particle_encoder import ParticleEncoder
from hepattn.physics.pair_features import PairFeature, PairTransform

BLOCK = BlockOptions(
    style="prenorm",
    attention=AttentionOptions(num_heads=8, head_dim=16, bias=False),
    activation="geglu",
    activation_dropout=0.0,
    dropout=0.0,
)


@dataclass(frozen=True)
class ParticleAttention:
    """The pairwise bias of attention between objects.

    Args:
        objects: Kinds of objects whose pairs have a bias, also with each other; all by default.
        quantities: What is computed of the four-vectors of two objects.
        transform: ``log`` with a floor, or ``log1p``.
        hidden: Features of the hidden layers of the network that makes the bias of them.
    """

    objects: Sequence[str] | None = None
    quantities: Sequence[PairFeature] = ("delta_r", "kt", "z", "m2")
    transform: PairTransform = "log"
    hidden: Sequence[int] = (48, 48)

    def kinds(self, schema: EventSchema) -> tuple[str, ...]:
        """The kinds of objects whose pairs have a bias.

        Raises:
            ValueError: If there is no such kind, or its four-vectors are not known.
        """
        kinds = schema.kinds if self.objects is None else tuple(self.objects)
        unknown = [kind for kind in kinds if kind not in schema.kinds]
        if unknown or not kinds:
            raise ValueError(f"objects={list(kinds)} must be some of {list(schema.kinds)}")
        missing = [kind for kind in kinds if kind not in schema.with_vectors]
        if missing:
            raise ValueError(
                f"particle_attention needs the four-vectors of {missing}; give them a momentum in "
                f"data.inputs, or name other kinds in objects: {list(schema.with_vectors)} have one"
            )
        return kinds

    def pair_options(self) -> PairOptions:
        """The same for the trunk; an object is no pair with itself."""
        return PairOptions(
            features=tuple(self.quantities),
            transform=self.transform,
            hidden=tuple(self.hidden),
            with_self=False,
        )


PAIRS = ParticleAttention()


class EventParticleTransformer(nn.Module):
    """Embed the objects, let them see each other and a class token see them, classify.

    Real objects alone are computed, whatever the padding; each pair of them counts once in the
    statistics of the pairwise network.

    Args:
        schema: What an event consists of.
        num_outputs: Number of logits O.
        dim: Number of features D.
        depth: Blocks in which objects see each other.
        num_class_blocks: Blocks in which the class token sees the objects; they drop nothing.
        block: What the blocks share.
        particle_attention: The pairwise bias; None for attention without one.
        embedding: How columns become tokens.
        first_attn_no_residual: Whether the first block's attention replaces the tokens instead of
            being added to them.

    Raises:
        ValueError: If the schema has no objects, or lacks four-vectors that the bias needs.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        dim: int = 64,
        depth: int = 3,
        num_class_blocks: int = 2,
        block: BlockOptions = BLOCK,
        particle_attention: ParticleAttention | None = PAIRS,
        embedding: ObjectEmbeddingOptions = ObjectEmbeddingOptions(),  # noqa: B008 (frozen)
        first_attn_no_residual: bool = False,
    ) -> None:
        super().__init__()
        schema.require_objects("EventParticleTransformer")
        self.embedding = ObjectEmbedding(schema, dim, embedding)
        paired = pairs = None
        if particle_attention is not None:
            kinds, pairs = particle_attention.kinds(schema), particle_attention.pair_options()
            if set(kinds) != set(schema.kinds):
                slots = [
                    torch.full((schema.max_objects[kind],), kind in kinds) for kind in schema.kinds
                ]
                paired = torch.cat(slots)  # (N,)
        self.register_buffer("is_paired", paired, persistent=False)
        self.encoder = ParticleEncoder(dim, depth, num_class_blocks, block, pairs)
        if first_attn_no_residual:
            first = FirstBlock(dim, block, has_residual=False)
            first.load_state_dict(self.encoder.blocks[0].state_dict())
            self.encoder.blocks[0] = first
        hidden = block.expansion * dim
        self.head = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(block.activation_dropout),
            nn.Linear(hidden, num_outputs),
        )

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Classify the events.

        Args:
            events: Raw columns of the events (B, F); read if the embedding fuses them.
            vectors: Four-vectors (E, px, py, pz) of the objects in GeV (B, N, 4).
            valid: True for real objects (B, N).
            *objects: Raw columns of each kind of object (B, P, F).

        Returns:
            Logits (B, O).
        """
        gathering = gather_objects(valid)
        x = gathering.pack(self.embedding(events, valid, *objects))  # (T, D)
        paired = None
        if self.is_paired is not None:
            paired = gathering.move(self.is_paired.expand_as(valid))  # (B, n)
        x = self.encoder(
            x, gathering.move(vectors), gathering.valid, gathering.packing, paired=paired
        )  # (B, D)
        return self.head(x)
