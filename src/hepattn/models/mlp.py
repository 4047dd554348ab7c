"""A multi-layer perceptron on the columns of an event."""

# B events, F columns, D features

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hepattn.nn.activation import ActivationName, make_activation
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions, event_embedding


class MLP(nn.Module):
    """Classify an event by its columns: an embedding, hidden layers, a linear map.

    A hidden layer is a linear map, dropout, batch normalisation, an activation.

    Args:
        schema: Columns of the events; objects are not looked at.
        num_outputs: Number of outputs.
        hidden: Units of each hidden layer.
        activation: Of the hidden layers.
        output_activation: Of the outputs; none by default.
        batchnorm: Whether hidden layers have batch normalisation.
        dropout: Probability of dropping a hidden unit.
        embedding_dim: Features of the embedding; as many as the first hidden layer by default.
        embedding: How columns become features.

    Raises:
        ValueError: If events have no columns, there is no hidden layer, or
            the embedding leaves several vectors for an event, or none that ``embedding_dim`` is of.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        hidden: Sequence[int] = (128, 128, 128),
        activation: ActivationName = "ReLU",
        output_activation: ActivationName | None = None,
        batchnorm: bool = False,
        dropout: float = 0.0,
        embedding_dim: int | None = None,
        embedding: EmbeddingOptions = EmbeddingOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        features = schema.require_events("MLP")
        if not hidden:
            raise ValueError("hidden=() must name at least one layer; give its units")
        self.embedding = event_embedding(features, embedding_dim, hidden[0], embedding)
        layers: list[nn.Module] = []
        for dims in pairwise([self.embedding.dim_out, *hidden]):
            layers += [nn.Linear(*dims), nn.Dropout(dropout)]
            layers += [MaskedBatchNorm(dims[1])] if batchnorm else []
            layers += [make_activation(activation)]
        self.layers = nn.Sequential(*layers)
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
        return self.output_activation(self.head(self.layers(self.embedding(events))))
