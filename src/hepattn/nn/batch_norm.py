"""Batch normalisation over the real tokens of a padded batch."""

# B events, N tokens, D features, P rows of real tokens

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from hepattn.ops.distributed import num_processes


def freeze_statistics(network: nn.Module) -> None:
    """Let all batch normalisations of a network use and keep the statistics that they have.

    It lasts until the network's mode is changed.

    Args:
        network: Any module.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, MaskedBatchNorm)):
            layer.eval()


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose statistics are those of the real tokens.

    Padding neither shifts the statistics nor gets an answer: padded slots are zero. The parameters
    and buffers are those of `torch.nn.BatchNorm1d`, and so is the answer where all tokens are real.

    In distributed training the statistics are those of the real tokens of all processes, each of
    which counts once, however unevenly the processes share them. There is nothing to convert, and
    ``sync_batchnorm`` leaves this layer alone.

    Args:
        dim: Number of features D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.momentum = 0.1
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

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

    def extra_repr(self) -> str:
        """The number of features, for `print`."""
        return str(len(self.weight))

    def _normalise(self, x: Tensor) -> Tensor:
        if self.training and num_processes() > 1:
            return self._normalise_together(x)
        has_variance = self.training and len(x) > 1
        if has_variance:
            self.num_batches_tracked += 1
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=has_variance,
            momentum=self.momentum,
            eps=self.eps,
        )

    def _normalise_together(self, x: Tensor) -> Tensor:
        """Normalise rows (P, D) by the statistics of the rows of all processes.

        All processes must come here, also those without rows. Squares are summed around the common
        mean, which loses less to rounding than subtracting its square.
        """
        rows = x.to(self.weight.dtype)
        num_here = rows.new_full((1,), len(rows))
        sums = _AllReduce.apply(torch.cat([rows.sum(0), num_here]))  # (D + 1)
        num = sums[-1].detach()
        mean = sums[:-1] / num.clamp(min=1)  # (D)
        squares = _AllReduce.apply((rows - mean).square().sum(0))  # (D)
        variance = squares / num.clamp(min=1)
        has_variance = num > 1
        with torch.no_grad():
            share = self.momentum * has_variance.to(rows.dtype)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(squares / (num - 1).clamp(min=1), share)
            self.num_batches_tracked += has_variance
        mean = torch.where(has_variance, mean, self.running_mean)
        variance = torch.where(has_variance, variance, self.running_var)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((rows - mean) * scale + self.bias).to(x.dtype)


class _AllReduce(torch.autograd.Function):
    """Sum over the processes; so are the gradients, as each process uses the sum."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)
