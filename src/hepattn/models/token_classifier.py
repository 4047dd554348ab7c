"""One logit for each token of a set: a hit filter, a pixel classifier."""

# B events, N tokens, F features, D hidden features

from collections.abc import Sequence

from torch import Tensor, nn

from hepattn.nn.dense import Dense
from hepattn.nn.encoder import Encoder
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.positional import Coordinate, SinusoidalEncoding


class TokenClassifier(nn.Module):
    """Scale, embed, encode the position, let the tokens attend, classify each.

    Args:
        features: Columns of the input, in order.
        encoder: What lets the tokens see each other.
        positions: Coordinates of the positional encoding, by their names in the feature list;
            none by default.
        alpha: Highest frequency of the positional encoding, per unit of a scaled coordinate.
        sort_by: Feature by which the encoder sorts the tokens; they keep their order by
            default.

    Raises:
        ValueError: If a position or ``sort_by`` is not in the feature list.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        encoder: Encoder,
        positions: tuple[Coordinate, ...] = (),
        alpha: float = 1000.0,
        sort_by: str | None = None,
    ) -> None:
        super().__init__()
        dim = encoder.dim
        self.normalise = Normalise(features)
        self.embed = Dense(len(features), dim, hidden=2 * dim)
        self.position_columns = [self.normalise.index(position.name) for position in positions]
        self.positions = SinusoidalEncoding(dim, positions, alpha) if positions else None
        self.sort_column = None if sort_by is None else self.normalise.index(sort_by)
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
        tokens = self.embed(self.normalise(x, valid))  # (B, N, D)
        if self.positions is not None:
            tokens = tokens + self.positions(x[..., self.position_columns])  # (B, N, D)
        key = None if self.sort_column is None else x[..., self.sort_column]  # (B, N)
        tokens = self.encoder(tokens, valid, key=key)  # (B, N, D)
        return self.head(tokens).squeeze(-1).masked_fill(~valid, 0.0)  # (B, N)
