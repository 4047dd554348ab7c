"""Deep sets: one network looks at each element, another at their mean (arXiv:1703.06114)."""

# B events, N objects, T real objects of all events, F columns, K kinds of objects, D features

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hepattn.nn.activation import ActivationName, make_activation
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions, FeatureEmbedding
from hepattn.nn.object_embedding import ObjectEmbedding, ObjectEmbeddingOptions
from hepattn.nn.packing import make_packing
from hepattn.nn.pooling import any_of_kind, kind_means, masked_mean


class DeepSets(nn.Module):
    """Classify an event by its objects, in whatever order they come.

    A network looks at each object alone. Its answers are averaged over the objects of each kind,
    then over the kinds that the event has, so that one muon weighs as much as five jets. Another
    network looks at the result. Layers of both are a linear map, batch normalisation, an
    activation, dropout. Normalisations see real objects only.

    Args:
        schema: Kinds of objects and their columns.
        num_outputs: Number of outputs.
        encoder: Units of each layer of the network that looks at each object.
        decoder: Units of each hidden layer of the network after the mean.
        activation: Of the layers.
        output_activation: Of the outputs; none by default.
        batchnorm: Whether layers have batch normalisation.
        dropout: Probability of dropping a unit.
        mean_pooling: Whether kinds are averaged; else their means, zero for a kind of which the
            event has none, are joined to one long vector.
        embedding_dim: Features of the embedding; as many as the first layer by default.
        embedding: How columns become features.

    Raises:
        ValueError: If there are no objects, or the encoder has no layer.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        encoder: Sequence[int] = (128, 128),
        decoder: Sequence[int] = (128,),
        activation: ActivationName = "ReLU",
        output_activation: ActivationName | None = None,
        batchnorm: bool = True,
        dropout: float = 0.0,
        mean_pooling: bool = True,
        embedding_dim: int | None = None,
        embedding: ObjectEmbeddingOptions = ObjectEmbeddingOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        kinds = schema.require_objects("DeepSets")
        _check_encoder(encoder)
        dim = embedding_dim or encoder[0]
        self.mean_pooling = mean_pooling
        self.embedding = ObjectEmbedding(schema, dim, embedding)
        self.encoder = _layers(dim, encoder, activation, batchnorm, dropout)
        pooled = encoder[-1] if mean_pooling else len(kinds) * encoder[-1]
        self.decoder = _layers(pooled, decoder, activation, batchnorm, dropout)
        self.head = nn.Linear([pooled, *decoder][-1], num_outputs)
        self.output_activation = make_activation(output_activation)

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Classify the events.

        Args:
            events: Raw columns (B, F); used if the embedding mixes them in.
            vectors: Four-vectors of the objects (B, N, 4); not used.
            valid: True for real objects (B, N), one kind behind the other.
            *objects: Raw columns of the objects of each kind (B, P, F of the kind).

        Returns:
            (B, num_outputs)
        """
        packing = make_packing(valid)
        tokens = self.embedding(events, valid, *objects)  # (B, N, D)
        x = packing.unpack(self.encoder(packing.pack(tokens)))  # (B, N, D)
        sizes = [part.shape[1] for part in objects]
        means = kind_means(x, valid, sizes)  # (B, K, D)
        if self.mean_pooling:
            pooled = masked_mean(means, any_of_kind(valid, sizes))  # (B, D)
        else:
            pooled = means.flatten(1)  # (B, K D)
        return self.output_activation(self.head(self.decoder(pooled)))


class FeatureDeepSets(nn.Module):
    """Classify an event by its columns as a set: like `DeepSets`, a column is an element.

    Args:
        schema: Columns of the events; objects are not looked at.
        num_outputs: Number of outputs.
        encoder: Units of each layer of the network that looks at each column.
        decoder: Units of each hidden layer of the network after the mean.
        activation: Of the layers.
        output_activation: Of the outputs; none by default.
        batchnorm: Whether layers have batch normalisation.
        dropout: Probability of dropping a unit.
        mean_pooling: Whether columns are averaged; else they are joined to one long vector.
        embedding_dim: Features of the embedding; as many as the first layer by default.
        embedding: How columns become features; each keeps its own, ``reduction="none"``.

    Raises:
        ValueError: If events have no columns, the encoder has no layer, or the embedding leaves no
            vector for each column.
    """

    def __init__(
        self,
        schema: EventSchema,
        num_outputs: int,
        encoder: Sequence[int] = (128, 128),
        decoder: Sequence[int] = (128,),
        activation: ActivationName = "ReLU",
        output_activation: ActivationName | None = None,
        batchnorm: bool = True,
        dropout: float = 0.0,
        mean_pooling: bool = True,
        embedding_dim: int | None = None,
        embedding: EmbeddingOptions = EmbeddingOptions(reduction="none"),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        features = schema.require_events("FeatureDeepSets")
        _check_encoder(encoder)
        if embedding.reduction != "none":
            raise ValueError(
                f"embedding.reduction={embedding.reduction!r} leaves no vector for each column, "
                "which are the elements of the set; use 'none', and disable no embeddings"
            )
        dim = embedding_dim or encoder[0]
        self.mean_pooling = mean_pooling
        self.embedding = FeatureEmbedding(features, dim, embedding, "events")
        self.encoder = _layers(dim, encoder, activation, batchnorm, dropout)
        pooled = encoder[-1] if mean_pooling else len(self.embedding.names) * encoder[-1]
        self.decoder = _layers(pooled, decoder, activation, batchnorm, dropout)
        self.head = nn.Linear([pooled, *decoder][-1], num_outputs)
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
        x = self.encoder(self.embedding(events))  # (B, F, D)
        pooled = x.mean(1) if self.mean_pooling else x.flatten(1)
        return self.output_activation(self.head(self.decoder(pooled)))


def _layers(
    dim: int, widths: Sequence[int], activation: ActivationName, batchnorm: bool, dropout: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dims in pairwise([dim, *widths]):
        layers += [nn.Linear(*dims)]
        layers += [MaskedBatchNorm(dims[1])] if batchnorm else []
        layers += [make_activation(activation), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def _check_encoder(encoder: Sequence[int]) -> None:
    if not encoder:
        raise ValueError("encoder=() must name at least one layer; give its units")
