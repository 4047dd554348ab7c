"""From the tokens of an event to objects: an encoder, queries and a mask decoder."""

# B events, M queries, N tokens, F columns, D features

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from hepattn.models.mask_decoder import MaskDecoder
from hepattn.nn.embedding import TokenEmbedding
from hepattn.nn.encoder import Encoder
from hepattn.nn.mask_head import Detections
from hepattn.nn.normalise import Feature
from hepattn.nn.queries import Queries
from hepattn.ops.sort import invert, sort_order, take


class FoundObjects(NamedTuple):
    """What a `MaskFormer` says about a batch, tokens in the order in which they came.

    Attributes:
        layers: The answers of the queries before the first decoder layer and after each; the
            last one is the answer.
        query_valid: True for real queries (B, M), real ones first.
        seed: Token that each query was made of (B, M); None for learned queries.
        seed_logit: Score of each token as a seed (B, N); None for learned queries.
    """

    layers: list[Detections]
    query_valid: Tensor
    seed: Tensor | None
    seed_logit: Tensor | None


class MaskFormer(nn.Module):
    """Embed the tokens, let them attend, and let queries find the objects that they belong to.

    After MaskFormer (arXiv:2107.06278), as arXiv:2411.07149 finds tracks.

    Args:
        features: Columns of the input, in order.
        encoder: What lets the tokens see each other.
        queries: Builds the queries from the number of features: `LearnedQueries` or
            `DynamicQueries`.
        decoder: Builds the decoder from the number of features.
        position: Builds the encoding of positions from the number of features, such as a
            `SinusoidalEncoding`; it is added to the embedded tokens, and queries carry it too.
            None by default.
        sort_by: Feature by which the tokens are sorted for encoder and decoder, an angle in
            radians; they keep their order by default.

    Raises:
        ValueError: If a coordinate or ``sort_by`` is not in the feature list, or the encoder
            reads out something else than tokens.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        encoder: Encoder,
        queries: Callable[[int], nn.Module],
        decoder: Callable[[int], MaskDecoder],
        position: Callable[[int], nn.Module] | None = None,
        sort_by: str | None = None,
    ) -> None:
        super().__init__()
        if encoder.read_out != "tokens":
            raise ValueError(f"read_out={encoder.read_out!r} leaves no tokens to group")
        self.embedding = TokenEmbedding(features, encoder.dim, position)
        self.encoder = encoder
        self.queries = queries(encoder.dim)
        self.decoder = decoder(encoder.dim)
        self.encoder_columns = self.embedding.columns(encoder.coordinates)
        self.decoder_columns = self.embedding.columns(self.decoder.coordinates)
        self.sort_column = None if sort_by is None else self.embedding.column(sort_by)

    def forward(self, x: Tensor, valid: Tensor) -> FoundObjects:
        """Find the objects.

        Args:
            x: Raw columns (B, N, F).
            valid: True for real tokens (B, N), real ones first.
        """
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)  # whatever padding holds, even NaN
        order = None
        if self.sort_column is not None:
            order = sort_order(x[..., self.sort_column], valid)  # (B, N)
            x = take(x, order)
        tokens = self.embedding(x, valid)  # (B, N, D)
        rotary = x[..., self.encoder_columns] if self.encoder_columns else None
        tokens = self.encoder(tokens, valid, positions=rotary)  # (B, N, D)
        queries: Queries = self.queries(tokens, x, valid, self.sort_column)
        layers = self.decoder(
            queries,
            tokens,
            valid,
            positions=(self.embedding.encode(queries.columns), self.embedding.encode(x)),
            coordinates=tuple(c[..., self.decoder_columns] for c in (queries.columns, x)),
        )
        found = FoundObjects(layers, queries.valid, queries.seed, queries.seed_logit)
        return found if order is None else _restore(found, order)


def _restore(found: FoundObjects, order: Tensor) -> FoundObjects:
    """Bring answers about sorted tokens back into the order in which the tokens came."""
    place = invert(order)  # (B, N)
    layers = [
        layer._replace(
            mask_logit=layer.mask_logit.gather(
                2, place.unsqueeze(1).expand(-1, layer.mask_logit.shape[1], -1)
            )
        )
        for layer in found.layers
    ]
    if found.seed is None:
        return found._replace(layers=layers)
    return found._replace(
        layers=layers,
        seed=order.gather(1, found.seed),
        seed_logit=found.seed_logit.gather(1, place),
    )
