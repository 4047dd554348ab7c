"""From the raw columns of a set to tokens that know where they are."""

# B events, N tokens, F features, D hidden features

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hepattn.nn.dense import Dense
from hepattn.nn.normalise import Feature, Normalise
from hepattn.nn.positional import Coordinate


class TokenEmbedding(nn.Module):
    """Scale the columns, embed them, encode the position.

    Args:
        features: Columns of the input, in order.
        dim: Number of features D of a token.
        position: Builds the encoding of positions from the number of features, such as a
            `SinusoidalEncoding`. Its coordinates are found in the feature list by their names.
            None by default.

    Raises:
        ValueError: If a coordinate is not in the feature list.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        dim: int,
        position: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(features)
        self.embed = Dense(len(self.normalise.embedded), dim, hidden=2 * dim)
        self.position = None if position is None else position(dim)
        self.position_columns = self.columns(getattr(self.position, "coordinates", ()))

    def column(self, name: str) -> int:
        """Return the column of a feature.

        Raises:
            ValueError: If the feature list does not hold it.
        """
        return self.normalise.index(name)

    def columns(self, coordinates: Sequence[Coordinate]) -> list[int]:
        """Return the columns of coordinates.

        Raises:
            ValueError: If the feature list lacks one.
        """
        return [self.column(coordinate.name) for coordinate in coordinates]

    def encode(self, x: Tensor) -> Tensor | None:
        """Encode where tokens with these raw columns (B, N, F) stand, (B, N, D) or None."""
        return None if self.position is None else self.position(x[..., self.position_columns])

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Embed the tokens and add the encoding of their positions.

        Args:
            x: Raw columns (B, N, F), finite at padded slots too.
            valid: True for real tokens (B, N).

        Returns:
            (B, N, D)
        """
        tokens = self.embed(self.normalise(x, valid))  # (B, N, D)
        encoding = self.encode(x)
        return tokens if encoding is None else tokens + encoding
