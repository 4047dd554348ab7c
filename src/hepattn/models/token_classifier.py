"""One logit for each token of a set: a hit filter, a pixel classifier."""

# B events, N tokens, F features, D hidden features

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hepattn.nn.dense import Dense
from hepattn.nn.embedding import TokenEmbedding
from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature
from hepattn.nn.x_transformer import XTransformerEncoder


class TokenClassifier(nn.Module):
    """Scale, embed, encode the position, let the tokens attend, classify each.

    Args:
        features: Columns of the input, in order.
        encoder: What lets the tokens see each other. Coordinates of its rotary encoding are
            features, too.
        position: Builds the encoding of positions that is added to the embedded tokens from the
            number of features, such as a `SinusoidalEncoding`. Its coordinates are found in
            the feature list by their names. None by default.
        sort_by: Feature by which the encoder sorts the tokens; they keep their order by
            default.

    Raises:
        ValueError: If a coordinate or ``sort_by`` is not in the feature list, or the encoder
            reads out something else than tokens.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        encoder: Encoder | XTransformerEncoder,
        position: Callable[[int], nn.Module] | None = None,
        sort_by: str | None = None,
    ) -> None:
        super().__init__()
        if encoder.read_out != "tokens":
            raise ValueError(f"read_out={encoder.read_out!r} leaves no tokens to classify")
        dim = encoder.dim
        self.embedding = TokenEmbedding(features, dim, position)
        self.rotary_columns = self.embedding.columns(encoder.coordinates)
        self.sort_column = None if sort_by is None else self.embedding.column(sort_by)
        self.encoder = encoder
        self.head = Dense(dim, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Classify the tokens.

        Args:
            x: Raw columns (B, N, F).
            valid: True for real tokens (B, N), real ones first.

        Returns:
            Logits (B, N), zero at padded slots.
        """
        x = x.masked_fill(~valid.unsqueeze(-1), 0.0)  # whatever padding holds, even NaN
        tokens = self.embedding(x, valid)  # (B, N, D)
        key = None if self.sort_column is None else x[..., self.sort_column]  # (B, N)
        rotary = x[..., self.rotary_columns] if self.rotary_columns else None  # (B, N, C)
        tokens = self.encoder(tokens, valid, key=key, positions=rotary)  # (B, N, D)
        return self.head(tokens).squeeze(-1).masked_fill(~valid, 0.0)  # (B, N)
