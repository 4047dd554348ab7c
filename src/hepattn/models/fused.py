"""Two networks as one: of the columns of an event and of its objects."""

# B events, F columns, N objects, O outputs

from collections.abc import Callable

from torch import Tensor, nn

from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions, FeatureEmbedding
from hepattn.nn.fusion import OutputFusion, OutputFusionOptions

TOKENS = EmbeddingOptions(reduction="none")


class FusedNetwork(nn.Module):
    """Let one network look at the columns of an event, another at its objects; fuse the outputs.

    With the mode ``attn`` there is no first network: the output of the second looks at the embedded
    columns themselves.

    Args:
        schema: Columns of the events and of their objects; both networks get it.
        num_outputs: Number of outputs O, of each network and of both together.
        flat: Builds the network of the events' columns; None with the mode ``attn``.
        jagged: Builds the network of the objects.
        fusion: How the outputs are fused.
        embedding: How columns become the vectors that ``attn`` looks at; each has its own,
            ``reduction="none"``.

    Raises:
        ValueError: If a network is missing or has no effect, or events have no columns.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        flat: Callable[[EventSchema, int], nn.Module] | None,
        jagged: Callable[[EventSchema, int], nn.Module],
        fusion: OutputFusionOptions = OutputFusionOptions(),  # noqa: B008 (frozen)
        embedding: EmbeddingOptions = TOKENS,
    ) -> None:
        super().__init__()
        features = schema.require_events("FusedNetwork")
        if fusion.has_attention != (flat is None):
            raise ValueError(
                f"fusion.mode={fusion.mode!r} "
                + (
                    "looks at the columns themselves; set flat to null"
                    if fusion.has_attention
                    else "needs a network of the columns; name one as flat"
                )
            )
        if embedding != TOKENS and not fusion.has_attention:
            raise ValueError(f"embedding has no effect with fusion.mode={fusion.mode!r}")
        if embedding.reduction != "none":
            raise ValueError(
                f"embedding.reduction={embedding.reduction!r} leaves no vector for each column to "
                "look at; use 'none'"
            )
        self.jagged = jagged(schema, num_outputs)
        if flat is None:
            self.flat = FeatureEmbedding(features, fusion.dim, embedding)
        else:
            self.flat = flat(schema, num_outputs)
        self.fusion = OutputFusion(num_outputs, fusion)

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Classify the events.

        Args:
            events: Raw columns (B, F).
            vectors: Four-vectors (E, px, py, pz) of the objects in GeV (B, N, 4).
            valid: True for real objects (B, N), one kind behind the other.
            *objects: Raw columns of the objects of each kind (B, P, F of the kind).

        Returns:
            (B, O)
        """
        jagged = self.jagged(events, vectors, valid, *objects)  # (B, O)
        if self.fusion.has_attention:
            return self.fusion(self.flat(events), jagged)
        return self.fusion(self.flat(events, vectors, valid, *objects), jagged)
