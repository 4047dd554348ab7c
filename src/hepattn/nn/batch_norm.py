"""Batch normalisation over the real tokens of a padded batch."""

# B events, N tokens, D features

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics are those of the real tokens.

    Padding neither shifts the statistics nor gets an answer: padded slots are zero. The parameters
    and buffers are those of `torch.nn.BatchNorm1d`, and so is the answer where all tokens are real.
    """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: Token features (B, N, D), or real tokens alone (P, D).
            valid: True for real tokens (B, N); None where all of them are.

        Returns:
            Like ``x``; zero at padded slots.
        """
        if valid is None or not self.training:
            flat = super().forward(x.flatten(0, -2)).view(x.shape)
            return flat if valid is None else flat.masked_fill(~valid.unsqueeze(-1), 0.0)
        real = super().forward(x[valid])  # (P, D)
        return torch.zeros_like(x, dtype=real.dtype).masked_scatter(valid.unsqueeze(-1), real)
