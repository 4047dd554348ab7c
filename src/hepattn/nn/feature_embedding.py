"""From columns of events or of objects to vectors: one for each column, or one for all of them."""

# B events, P slots of a kind, N slots of all kinds, F columns, E embedding features

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from hepattn.nn.activation import ActivationName, make_activation
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.column_summary import ColumnSummary
from hepattn.nn.column_tokens import ColumnConvolution, ColumnTokens, NumericEmbedding
from hepattn.nn.feature_reduction import Reduction, make_reduction
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.piecewise_linear import PiecewiseLinearOptions


@dataclass(frozen=True)
class PostEmbeddingOptions:
    """What comes after an embedding: a norm, an activation, dropout, in this order.

    Args:
        activation: Name of the activation function; none by default.
        layernorm: Whether there is a layer norm.
        batchnorm: Whether there is a batch normalisation over the real objects; not for columns of
            events.
        dropout: Probability of dropping an embedding feature.

    Raises:
        ValueError: If there are two norms or ``dropout`` is out of range.
    """

    activation: ActivationName | None = None
    layernorm: bool = False
    batchnorm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.layernorm and self.batchnorm:
            raise ValueError("layernorm and batchnorm exclude each other; choose one")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True)
class EmbeddingOptions:
    """How columns become vectors.

    Args:
        numeric: ``linear`` is a factor and an offset for each embedding feature, of a column, that
            start small; ``feature_wise`` is the same, started as linear maps of one number are;
            ``piecewise_linear`` is a linear map of how full bins are.
        piecewise_linear: The bins.
        reduction: How the vectors of all columns become one: ``mean``, ``reshape``, ``conv1d``
            (of events), ``conv2d`` (of objects), ``attn``, or ``none``, which is not for objects.
        post: What comes after the embedding: for events of each column, for objects of what the
            reduction makes of them.
        conv1d_embedding: For objects, in place of all that: batch normalisation, one linear map of
            all columns, ReLU.
        disable_embeddings: For events, in place of all that: the scaled columns themselves.

    Raises:
        ValueError: If an option would have no effect.
    """

    numeric: NumericEmbedding = "linear"
    piecewise_linear: PiecewiseLinearOptions = field(default_factory=PiecewiseLinearOptions)
    reduction: Reduction = "mean"
    post: PostEmbeddingOptions = field(default_factory=PostEmbeddingOptions)
    conv1d_embedding: bool = False
    disable_embeddings: bool = False

    def __post_init__(self) -> None:
        has_bins = self.piecewise_linear != PiecewiseLinearOptions()
        if has_bins and self.numeric != "piecewise_linear":
            raise ValueError(
                f"piecewise_linear has no effect with numeric={self.numeric!r}; set numeric to "
                "'piecewise_linear'"
            )
        for name in ("conv1d_embedding", "disable_embeddings"):
            if getattr(self, name):
                self._check_alone(name)

    def _check_alone(self, name: str) -> None:
        found = (self.numeric, self.piecewise_linear, self.reduction)
        is_plain = found == ("linear", PiecewiseLinearOptions(), "mean")
        if name == "disable_embeddings":
            is_plain = is_plain and self.post == PostEmbeddingOptions()
        if not is_plain or (self.conv1d_embedding and self.disable_embeddings):
            raise ValueError(f"{name} takes the place of all other embeddings; leave them out")


class PostEmbedding(nn.Module):
    """Normalise, activate, drop.

    Args:
        dim: Number of embedding features E.
        options: Which of these.
    """

    def __init__(self, dim: int, options: PostEmbeddingOptions) -> None:
        super().__init__()
        self.batchnorm = MaskedBatchNorm(dim) if options.batchnorm else None
        self.layernorm = nn.LayerNorm(dim) if options.layernorm else nn.Identity()
        self.activation = make_activation(options.activation)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Treat embeddings.

        Args:
            x: Embeddings (B, N, E), or (B, F, E) of columns of events.
            valid: True for real objects (B, N), for the batch normalisation.

        Returns:
            Like ``x``.
        """
        if self.batchnorm is not None:
            x = self.batchnorm(x, valid)
        return self.dropout(self.activation(self.layernorm(x)))


class FeatureEmbedding(nn.Module):
    """Scale the columns of events, or of one kind of objects, and embed them.

    Args:
        features: The columns, in order.
        dim: Number of embedding features E.
        options: How.
        source: Whose columns these are: ``events``, or a kind of objects.

    Attributes:
        dim_out: How many numbers the answer has for an event, an object, or with the reduction
            ``none`` a column.
        names: The columns in the order of the vectors with the reduction ``none``.

    Raises:
        ValueError: If an option is not for this source.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        dim: int,
        options: EmbeddingOptions = EmbeddingOptions(),
        source: str = "events",
    ) -> None:
        super().__init__()
        is_flat = source == "events"
        if is_flat and (options.conv1d_embedding or options.post.batchnorm):
            raise ValueError("conv1d_embedding and batchnorm are for objects, not for events")
        if not is_flat and options.disable_embeddings:
            raise ValueError(f"disable_embeddings is for events; {source} need embeddings")
        self.source = source
        self.normalise = Normalise(features)
        embedded = [self.normalise.features[i] for i in self.normalise.embedded]
        self.tokens = self.convolution = self.reduction = None
        names, self.dim_out = [feature.name for feature in embedded], dim
        if options.disable_embeddings:
            self.dim_out = len(embedded)
        elif options.conv1d_embedding:
            self.convolution = ColumnConvolution(len(embedded), dim)
        else:
            self.tokens = ColumnTokens(embedded, dim, options.numeric, options.piecewise_linear)
            names = [names[i] for i in (*self.tokens.numbers, *self.tokens.categories)]
            self.reduction, self.dim_out = make_reduction(
                options.reduction, len(embedded), dim, is_flat
            )
        self.names = tuple(names)
        has_post = options.post != PostEmbeddingOptions()
        post = PostEmbedding(dim, options.post) if has_post else None
        self.column_post, self.post = (post, None) if is_flat else (None, post)
        self.bins = None if self.tokens is None else self.tokens.bins

    @property
    def needs_fit(self) -> bool:
        """Whether statistics of the training split are still needed, see `fit_inputs`."""
        return not (self.normalise.is_fitted and (self.bins is None or self.bins.is_fitted))

    def fit(self, summary: ColumnSummary) -> None:
        """Take scalings and bins from the training split.

        Args:
            summary: Statistics of all columns F, in order.

        Raises:
            ValueError: If they are those of another number of columns.
        """
        self.normalise.fit(summary)
        if self.bins is None:
            return
        quantiles = summary.quantiles.nan_to_num().to(self.normalise.shift)
        scaled = self.normalise.rescale(quantiles)[:, self.normalise.embedded]
        self.bins.fit(scaled[:, self.tokens.numbers])

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed.

        Args:
            x: Raw columns (B, F) of events or (B, P, F) of objects.
            valid: True for real objects (B, P).

        Returns:
            (B, E) or (B, P, E); with the reduction ``none`` (B, F, E) or (B, P, F, E). What stands
            at padded slots is finite and means nothing.

        Raises:
            RuntimeError: If the training split is needed and has not been seen.
        """
        x = self.normalise(x, valid)
        if self.convolution is not None:
            x = self.convolution(x, valid)
        elif self.tokens is not None:
            x = self._embed(x)
        return x if self.post is None else self.post(x, valid)

    def _embed(self, x: Tensor) -> Tensor:
        """Embed scaled columns (..., F) and reduce their vectors."""
        if self.column_post is not None:
            return self.reduction(self.column_post(self.tokens(x)))
        if self.tokens.is_linear and hasattr(self.reduction, "fold"):
            return self.tokens.reduce(x, self.reduction)
        return self.reduction(self.tokens(x))


def needs_fit(network: nn.Module) -> bool:
    """Whether a network still needs statistics of the training split, see `fit_inputs`.

    Args:
        network: Any module.
    """
    return any(isinstance(m, FeatureEmbedding) and m.needs_fit for m in network.modules())


def event_embedding(
    features: Sequence[Feature], dim: int | None, default_dim: int, options: EmbeddingOptions
) -> FeatureEmbedding:
    """Build the embedding of the columns of events in one vector.

    Args:
        features: The columns, in order.
        dim: Number of embedding features; None for the default.
        default_dim: That number.
        options: How.

    Raises:
        ValueError: If the embedding leaves several vectors for an event, or ``dim`` has no effect.
    """
    if options.reduction == "none":
        raise ValueError(
            "embedding.reduction='none' leaves several vectors for an event; choose another"
        )
    if options.disable_embeddings and dim is not None:
        raise ValueError(
            f"embedding_dim={dim} has no effect with embedding.disable_embeddings; leave it out"
        )
    return FeatureEmbedding(features, dim or default_dim, options, "events")


def fit_inputs(network: nn.Module, summaries: Mapping[str, ColumnSummary]) -> None:
    """Let a network take from the training split what it needs of it: scalings and bins.

    What has been taken already, or loaded with the weights, stays as it is.

    Args:
        network: Any module with `FeatureEmbedding` in it.
        summaries: Statistics of the columns of ``events`` and of each kind of objects.

    Raises:
        ValueError: If those of a source that is needed are missing.
    """
    for module in network.modules():
        if isinstance(module, FeatureEmbedding) and module.needs_fit:
            if module.source not in summaries:
                raise ValueError(
                    f"the columns of {module.source} need statistics of the training split; there "
                    f"are some of {list(summaries)}"
                )
            module.fit(summaries[module.source])
