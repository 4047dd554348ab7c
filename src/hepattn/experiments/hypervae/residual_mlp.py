"""Dense networks with residuals."""

# D features

from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """A dense network of equal layers, each added to what it began with.

    Args:
        dim_in: Number of input features.
        dim: Number of features D.
        num_layers: Number of layers after the first map.
        dropout: Probability of dropping a feature.
    """

    def __init__(self, dim_in: int, dim: int, num_layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Linear(dim_in, dim)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Dropout(dropout))
            for _ in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., dim_in) to (..., D)."""
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x)
        return x
