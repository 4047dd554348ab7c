"""A residual network on the columns of an event, with activations before the linear maps."""

# B events, F columns, D features

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hepattn.nn.activation import ActivationName, make_activation
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions, event_embedding


class ResNet(nn.Module):
    """Classify an event by its columns: an embedding, residual blocks, a linear map.

    Nothing stands on the way of the residuals from the first block to the last; what comes out is
    normalised and activated once more before the linear map (arXiv:1603.05027).

    Args:
        schema: Columns of the events; objects are not looked at.
        num_outputs: Number of outputs.
        hidden: Units of each residual block.
        block_size: Linear maps in a block.
        activation: Before each of them.
        output_activation: Of the outputs; none by default.
        batchnorm: Whether batch normalisation comes before each activation.
        dropout: Probability of dropping a unit between the linear maps of a block.
        embedding_dim: Features of the embedding; as many as the first block by default.
        embedding: How columns become features.

    Raises:
        ValueError: If events have no columns, there is no block or nothing in it, or
            the embedding leaves several vectors for an event, or none that ``embedding_dim`` is of.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        hidden: Sequence[int] = (128, 128, 128),
        block_size: int = 2,
        activation: ActivationName = "ReLU",
        output_activation: ActivationName | None = None,
        batchnorm: bool = True,
        dropout: float = 0.1,
        embedding_dim: int | None = None,
        embedding: EmbeddingOptions = EmbeddingOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        features = schema.require_events("ResNet")
        if not hidden:
            raise ValueError("hidden=() must name at least one block; give its units")
        self.embedding = event_embedding(features, embedding_dim, hidden[0], embedding)
        dim_in = self.embedding.dim_out
        self.project = nn.Linear(dim_in, hidden[0]) if dim_in != hidden[0] else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(*dims, block_size, activation, batchnorm, dropout)
                for dims in pairwise([hidden[0], *hidden])
            )
        )
        self.norm = MaskedBatchNorm(hidden[-1]) if batchnorm else nn.Identity()
        self.activation = make_activation(activation)
        self.head = nn.Linear(hidden[-1], num_outputs)
        self.output_activation = make_activation(output_activation)

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Classify the events.

        Args:
            events: Raw columns (B, F).
            vectors: Four-vectors of the objects (B, N, 4); not used.
            valid: True for real objects (B, N); not used.
            *objects: Raw columns of the objects; not used.

        Returns:
            (B, num_outputs)
        """
        x = self.blocks(self.project(self.embedding(events)))  # (B, D)
        return self.output_activation(self.head(self.activation(self.norm(x))))


class ResidualBlock(nn.Module):
    """Normalisation, activation, linear map; the same again; and a shortcut around all of it.

    Args:
        dim: Number of input features.
        dim_out: Number of output features; if it is another number, the shortcut is a linear map.
        size: Number of linear maps.
        activation: Before each of them.
        batchnorm: Whether batch normalisation comes before each activation.
        dropout: Probability of dropping a unit between the linear maps.

    Raises:
        ValueError: If there is no linear map.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        size: int = 2,
        activation: ActivationName = "ReLU",
        batchnorm: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"block_size={size} must be at least 1")
        layers: list[nn.Module] = []
        for place, dims in enumerate(pairwise([dim] + size * [dim_out])):
            layers += [nn.Dropout(dropout)] if place > 0 else []
            layers += [MaskedBatchNorm(dims[0])] if batchnorm else []
            layers += [make_activation(activation), nn.Linear(*dims)]
        self.layers = nn.Sequential(*layers)
        changes = dim != dim_out
        self.shortcut = nn.Linear(dim, dim_out, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, D) to (B, dim_out)."""
        return self.shortcut(x) + self.layers(x)
