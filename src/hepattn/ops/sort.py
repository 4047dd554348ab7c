"""Sort the tokens of each event and find the way back."""

# B events, N tokens

import torch
from torch import Tensor


def sort_order(key: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Order the real tokens of each event by a key, padding last.

    Equal keys keep their order.

    Args:
        key: What to sort by (B, N).
        valid: True for real tokens (B, N).

    Returns:
        The order (B, N), whose entry i is the token that comes i-th, and its inverse (B, N),
        whose entry i is the place that token i has got.
    """
    by_key = key.argsort(dim=1, stable=True)  # (B, N)
    padding_last = (~valid.gather(1, by_key)).to(torch.uint8).argsort(dim=1, stable=True)
    order = by_key.gather(1, padding_last)  # (B, N)
    return order, order.argsort(dim=1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Pick tokens x[b, index[b, n]] of each event.

    Args:
        x: Tokens (B, N, D).
        index: Which token goes where (B, M).

    Returns:
        (B, M, D)
    """
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # (B, M, D)
