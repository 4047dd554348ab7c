"""Batch normalisation over the real tokens of a padded batch."""

# B events, N tokens, D features

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics are those of the real tokens.

    Padding neither shifts the statistics nor gets an answer: padded slots are zero. The parameters
    and buffers are those of `torch.nn.BatchNorm1d`, and so is the answer where all tokens are real.
    """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise; a batch of fewer than two real tokens by the statistics of earlier ones.

        Args:
            x: Token features (B, N, D), or real tokens alone (P, D).
            valid: True for real tokens (B, N); None where all of them are.

        Returns:
            Like ``x``; zero at padded slots.
        """
        if valid is None:
            return self._normalise(x.flatten(0, -2)).view(x.shape)
        hidden = ~valid.unsqueeze(-1)
        if not self.training:
            return (
                self._normalise(x.masked_fill(hidden, 0.0).flatten(0, 1))
                .view(x.shape)
                .masked_fill(hidden, 0.0)
            )
        real = self._normalise(x[valid])  # (P, D)
        return torch.zeros_like(x, dtype=real.dtype).masked_scatter(~hidden, real)

    def _normalise(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:  # no variance
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)
