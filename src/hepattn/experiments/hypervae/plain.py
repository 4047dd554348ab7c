"""A network of tokens that knows nothing of boosts, in the place of a Lorentz network."""

# B jets, N particles, V vectors, S scalars, D features

import torch
from torch import Tensor, nn

from hepattn.nn.lorentz import hide_padding, prepare


class PlainNetwork(nn.Module):
    """Torch's transformer of the components of vectors and of scalars, for comparison.

    Args:
        in_vectors: Vectors V of a token.
        in_scalars: Scalars S of a token.
        out_vectors: Vectors of a token in the output.
        out_scalars: Scalars of a token in the output.
        dim: Number of features D.
        depth: Number of layers.
        num_heads: Number of attention heads.
        hidden: Hidden units of the dense nets.
    """

    def __init__(
        self,
        in_vectors: int,
        in_scalars: int,
        out_vectors: int,
        out_scalars: int,
        dim: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.out_vectors = out_vectors
        self.embed = nn.Linear(4 * in_vectors + in_scalars, dim)
        layer = nn.TransformerEncoderLayer(
            dim,
            num_heads,
            hidden,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(dim, 4 * out_vectors + out_scalars)

    def forward(self, vectors: Tensor, scalars: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Transform the tokens; arguments and results as in ``hepattn.nn.lorentz.Slim.forward``."""
        vectors, scalars, mask = prepare(vectors, scalars, valid)
        x = self.embed(torch.cat([vectors.flatten(2), scalars], -1))  # (B, N, D)
        x = self.out(self.layers(x, src_key_padding_mask=~mask[:, 0, 0]))
        vectors, scalars = x.split([4 * self.out_vectors, x.shape[-1] - 4 * self.out_vectors], -1)
        return hide_padding(vectors.unflatten(-1, (self.out_vectors, 4)), scalars, valid)
