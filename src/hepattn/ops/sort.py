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
    by_key = stable_argsort(key)  # (B, N)
    padding_last = stable_argsort((~valid.gather(1, by_key)).int())
    order = by_key.gather(1, padding_last)  # (B, N)
    return order, order.argsort(dim=1)


def stable_argsort(key: Tensor) -> Tensor:
    """Sort each row (B, N), ascending; equal keys keep their order.

    ONNX has no stable sort, but its TopK, which an exported sort becomes, promises the same.
    """
    if torch.compiler.is_exporting():
        return key.argsort(dim=1)
    return key.argsort(dim=1, stable=True)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Pick tokens x[b, index[b, n]] of each event.

    Args:
        x: Tokens (B, N, D).
        index: Which token goes where (B, M).

    Returns:
        (B, M, D)
    """
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # (B, M, D)
