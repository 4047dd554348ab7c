"""Set Transformer: objects attend to each other, learned seeds sum them up (arXiv:1810.00825)."""

# B events, N slots of all kinds, P slots of a kind, F columns, T real objects, D features, S seeds

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hepattn.nn.activation import ActivationName, make_activation
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.gathering import gather_objects
from hepattn.nn.object_embedding import ObjectEmbedding, ObjectEmbeddingOptions
from hepattn.nn.pooling import SeedPooling
from hepattn.nn.set_block import SetBlock, SetBlockOptions
from hepattn.ops.attention import Full, make_plan

SeedStrategy = Literal["pooling", "particles", "objects"]


@dataclass(frozen=True)
class SetPredictor:
    """The dense net that classifies what the seeds have learned.

    Args:
        depth: Number of hidden layers.
        activation: Activation function of a hidden layer.
        mean_pooling: Whether the seeds are averaged; else they are joined.

    Raises:
        ValueError: If the depth is negative.
    """

    depth: int = 1
    activation: ActivationName = "GELU"
    mean_pooling: bool = False

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"depth={self.depth} must be at least 0")


class SetTransformer(nn.Module):
    """Encode the objects, let seeds look at them, let several seeds see each other, classify.

    Real objects alone are computed, whatever the padding.

    Args:
        schema: What an event consists of.
        num_outputs: Number of logits O.
        dim: Number of features D.
        encoder_depth: Blocks in which objects see each other.
        decoder_depth: Blocks in which seeds see each other, where there are several.
        block: What the blocks share.
        seed_strategy: How many seeds there are: one (``pooling``), as many as an event can have
            objects (``particles``) or as there are kinds of objects (``objects``).
        set_predictor: The dense net at the end; its hidden layers have twice as many units as
            those of the blocks, and their dropout.
        embedding: How columns become tokens.
        first_attn_no_residual: Whether the first block's attention replaces the tokens instead of
            being added to them.

    Raises:
        ValueError: If the schema has no objects, or a number of blocks is out of range.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        dim: int = 64,
        encoder_depth: int = 2,
        decoder_depth: int = 2,
        block: SetBlockOptions = SetBlockOptions(),  # noqa: B008 (frozen)
        seed_strategy: SeedStrategy = "pooling",
        set_predictor: SetPredictor = SetPredictor(),
        embedding: ObjectEmbeddingOptions = ObjectEmbeddingOptions(),  # noqa: B008 (frozen)
        first_attn_no_residual: bool = False,
    ) -> None:
        super().__init__()
        schema.require_objects("SetTransformer")
        if encoder_depth < 1 or decoder_depth < 0:
            raise ValueError(
                f"encoder_depth={encoder_depth} must be at least 1, "
                f"decoder_depth={decoder_depth} at least 0"
            )
        num_seeds = {
            "pooling": 1,
            "particles": sum(schema.max_objects.values()),
            "objects": len(schema.kinds),
        }[seed_strategy]
        self.embedding = ObjectEmbedding(schema, dim, embedding)
        first = SetBlock(dim, block, has_residual=not first_attn_no_residual)
        others = (SetBlock(dim, block) for _ in range(encoder_depth - 1))
        self.encoder = nn.ModuleList([first, *others])
        self.norm = block.make_norm(dim)
        self.pooling = SeedPooling(dim, num_seeds, SetBlock(dim, block))
        num_decoders = decoder_depth if num_seeds > 1 else 0
        self.decoder = nn.ModuleList(SetBlock(dim, block) for _ in range(num_decoders))
        self.has_mean = set_predictor.mean_pooling
        width = dim if self.has_mean else num_seeds * dim
        layers: list[nn.Module] = []
        for _ in range(set_predictor.depth):
            hidden = 2 * block.expansion * dim
            activation = make_activation(set_predictor.activation)
            layers += [nn.Linear(width, hidden), nn.Dropout(block.dropout), activation]
            width = hidden
        self.head = nn.Sequential(*layers, nn.Linear(width, num_outputs))

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Classify the events.

        Args:
            events: Raw columns of the events (B, F); read if the embedding fuses them.
            vectors: Four-vectors of the objects (B, N, 4); not used.
            valid: True for real objects (B, N).
            *objects: Raw columns of each kind of object (B, P, F).

        Returns:
            Logits (B, O).
        """
        gathering = gather_objects(valid)
        x = gathering.pack(self.embedding(events, valid, *objects))  # (T, D)
        plan = make_plan(Full(), gathering.valid)
        for block in self.encoder:
            x = block(x, plan, packing=gathering.packing)
        x = self.norm(x, gathering.valid, gathering.packing)
        x = self.pooling(gathering.packing.unpack(x), gathering.valid)  # (B, S, D)
        if self.decoder:
            plan = make_plan(Full(), valid.new_ones(x.shape[:2]))
            for block in self.decoder:
                x = block(x, plan)
        return self.head(x.mean(1) if self.has_mean else x.flatten(1))
