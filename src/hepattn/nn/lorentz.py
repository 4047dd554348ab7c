"""Transformers of vectors and scalars that commute with boosts and rotations, made by lgatr.

Every network here maps vectors (B, N, V, 4) and scalars (B, N, S) of padded tokens to vectors and
scalars of the same tokens. Give the reference vectors of the frame (time, beam, jet axis) as more
vectors of each token: outputs are covariant in vectors and references together. Attention is
lgatr's own, through torch's ``scaled_dot_product_attention``, outside our attention contract.
"""

# B events, N tokens, V vectors of a token, S scalars of a token

import warnings
from collections.abc import Callable

import torch
from lgatr import LGATr, LGATrSlim, embed_vector, extract_vector
from torch import Tensor, nn

LorentzNetwork = Callable[[int, int, int, int], nn.Module]
"""Builds a network from the numbers of vectors and scalars in, then those out."""


class Slim(LGATrSlim):
    """L-GATr-slim (arXiv:2512.17011): vectors and scalars meet in Minkowski products.

    Args:
        in_vectors: Vectors V of a token.
        in_scalars: Scalars S of a token; a constant takes their place where there are none.
        out_vectors: Vectors of a token in the output, 0 for none.
        out_scalars: Scalars of a token in the output, 0 for none.
        depth: Number of blocks.
        num_vectors: Vectors of a token in the hidden layers.
        num_scalars: Scalars of a token in the hidden layers.
        num_heads: Number of attention heads.
        dropout: Probability of dropping a vector or scalar.
        mlp_ratio: Width of the hidden layers of each block's dense net, in multiples.
    """

    def __init__(
        self,
        in_vectors: int,
        in_scalars: int,
        out_vectors: int,
        out_scalars: int,
        depth: int = 2,
        num_vectors: int = 16,
        num_scalars: int = 32,
        num_heads: int = 4,
        dropout: float = 0.0,
        mlp_ratio: int = 2,
    ) -> None:
        super().__init__(
            num_blocks=depth,
            in_v_channels=in_vectors,
            out_v_channels=out_vectors,
            hidden_v_channels=num_vectors,
            in_s_channels=max(in_scalars, 1),
            out_s_channels=out_scalars,
            hidden_s_channels=num_scalars,
            num_heads=num_heads,
            dropout_prob=dropout or None,
            mlp_ratio=mlp_ratio,
        )
        self.has_scalars = in_scalars > 0

    def forward(self, vectors: Tensor, scalars: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Transform the tokens.

        Args:
            vectors: Vectors (B, N, V, 4); anything at padded slots.
            scalars: Scalars (B, N, S).
            valid: True for real tokens (B, N).

        Returns:
            Vectors (B, N, out_vectors, 4) and scalars (B, N, out_scalars), zero at padded slots.
        """
        vectors, scalars, mask = prepare(vectors, scalars, valid)
        if not self.has_scalars:
            scalars = valid.unsqueeze(-1).to(vectors.dtype)  # slim networks must have one
        vectors, scalars = super().forward(vectors, scalars, attn_mask=mask)
        return hide_padding(vectors, scalars, valid)


class Full(LGATr):
    """L-GATr (arXiv:2405.14806, arXiv:2411.00446): multivectors of the geometric algebra.

    Args:
        in_vectors: Vectors V of a token.
        in_scalars: Scalars S of a token, 0 for none.
        out_vectors: Vectors of a token in the output, 0 for none.
        out_scalars: Scalars of a token in the output, 0 for none.
        depth: Number of blocks.
        num_multivectors: Multivectors of a token in the hidden layers.
        num_scalars: Scalars of a token in the hidden layers.
        num_heads: Number of attention heads.
        multi_query: Whether all heads share their keys and values.
        head_scale: Whether each head's output has a learned factor.
        dropout: Probability of dropping a multivector or scalar.
        mlp_ratio: Width of the hidden layers of each block's dense net, in multiples.
        num_layers_mlp: Layers of that net.
        checkpoint_blocks: Whether to compute activations again instead of keeping them.
    """

    def __init__(
        self,
        in_vectors: int,
        in_scalars: int,
        out_vectors: int,
        out_scalars: int,
        depth: int = 2,
        num_multivectors: int = 16,
        num_scalars: int = 32,
        num_heads: int = 4,
        multi_query: bool = True,
        head_scale: bool = True,
        dropout: float = 0.0,
        mlp_ratio: int = 2,
        num_layers_mlp: int = 2,
        checkpoint_blocks: bool = False,
    ) -> None:
        with warnings.catch_warnings():  # of a side that is left out
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            super().__init__(
                num_blocks=depth,
                in_mv_channels=in_vectors,
                out_mv_channels=out_vectors,
                hidden_mv_channels=num_multivectors,
                in_s_channels=in_scalars,
                out_s_channels=out_scalars,
                hidden_s_channels=num_scalars,
                attention={
                    "num_heads": num_heads,
                    "multi_query": multi_query,
                    "head_scale": head_scale,
                },
                mlp={"mlp_ratio": mlp_ratio, "num_layers_mlp": num_layers_mlp},
                # The one at the top: lgatr overwrites the attention's own.
                dropout_prob=dropout or None,
                checkpoint_blocks=checkpoint_blocks,
            )
        self.out_vectors = out_vectors

    def forward(self, vectors: Tensor, scalars: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Transform the tokens; arguments and results as in ``Slim.forward``."""
        vectors, scalars, mask = prepare(vectors, scalars, valid)
        given = scalars if scalars.shape[-1] else None
        multivectors, scalars = super().forward(embed_vector(vectors), given, attn_mask=mask)
        vectors = extract_vector(multivectors) if self.out_vectors else vectors[..., :0, :]
        scalars = vectors.new_zeros(*valid.shape, 0) if scalars is None else scalars
        return hide_padding(vectors, scalars, valid)


def prepare(vectors: Tensor, scalars: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Empty the padded slots and make the mask of attention (B, 1, 1, N), True = attend.

    An event without tokens attends to its padding, and leaves no trace of it.

    Args:
        vectors: Vectors (B, N, V, 4).
        scalars: Scalars (B, N, S).
        valid: True for real tokens (B, N).
    """
    vectors, scalars = hide_padding(vectors, scalars, valid)
    seen = valid | ~valid.any(1, keepdim=True)
    return vectors, scalars.to(vectors.dtype), seen[:, None, None]


def hide_padding(vectors: Tensor, scalars: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Set padded slots of vectors (B, N, V, 4) and scalars (B, N, S) to zero."""
    padded = ~valid.unsqueeze(-1)  # (B, N, 1)
    return vectors.masked_fill(padded.unsqueeze(-1), 0.0), scalars.masked_fill(padded, 0.0)


def with_references(vectors: Tensor, references: Tensor) -> Tensor:
    """Give each token the reference vectors of its event beside its own.

    Args:
        vectors: Vectors of the tokens (B, N, V, 4).
        references: Reference vectors of the events (B, R, 4), or of all events (R, 4).

    Returns:
        (B, N, V + R, 4)
    """
    B, N = vectors.shape[:2]
    references = references.to(vectors.dtype).expand(B, *references.shape[-2:])
    return torch.cat([vectors, references.unsqueeze(1).expand(-1, N, -1, -1)], 2)
