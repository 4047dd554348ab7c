"""Sort the tokens of each event and find the way back."""

# B events, N tokens

import torch
from torch import Tensor


def sort_order(key: Tensor, valid: Tensor) -> Tensor:
    """Order the real tokens of each event by a key, padding last.

    Equal keys keep their order.

    Args:
        key: What to sort by (B, N).
        valid: True for real tokens (B, N).

    Returns:
        (B, N), whose entry i is the token that comes i-th.
    """
    return group_order(key, (~valid).int())


def group_order(key: Tensor, group: Tensor) -> Tensor:
    """Order the tokens of each row by their group, and by a key within it.

    Equal keys keep their order.

    Args:
        key: What to sort by within a group (B, N).
        group: Number of the token's group (B, N).

    Returns:
        (B, N), whose entry i is the token that comes i-th.
    """
    by_key = _stable_argsort(key)  # (B, N)
    return by_key.gather(1, _stable_argsort(group.gather(1, by_key)))


def invert(order: Tensor) -> Tensor:
    """Turn an order (B, N) into the places (B, N) that the tokens have got in it."""
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place)


def _stable_argsort(key: Tensor) -> Tensor:
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
