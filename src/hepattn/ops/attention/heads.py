"""Key and value heads that serve several query heads."""

# B events, H heads, Hk key heads, N keys, E head features

from torch import Tensor


def repeat_heads(x: Tensor, num_heads: int) -> Tensor:
    """Give each query head a key head of its own: (B, Hk, N, E) to (B, H, N, E).

    Copies nothing where there are as many already.
    """
    repeats = num_heads // x.shape[1]
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=1)
