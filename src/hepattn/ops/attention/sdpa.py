"""Attention over dense masks by torch's scaled dot product attention, and its weights."""

# B events, H heads, M queries, N keys, E head features

import torch
import torch.nn.functional as F
from torch import Tensor

from hepattn.ops.attention.plan import Plan


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None,
    dropout: float,
    scale: float,
) -> Tensor:
    """Attend with a mask of every query-key pair; torch chooses its kernel.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, Hk, N, E), with Hk dividing H.
        v: Values (B, Hk, N, E).
        plan: The batch's plan.
        bias: Additive score bias (B or 1, H or 1, M, N).
        dropout: Probability with which an attention weight is dropped.
        scale: Factor on the scores.

    Returns:
        (B, H, M, E); zero at padded queries and where nothing is visible.
    """
    mask = plan.mask
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out if plan.blind is None else out.masked_fill(plan.blind, 0.0)


def dense_weights(q: Tensor, k: Tensor, *, plan: Plan, bias: Tensor | None, scale: float) -> Tensor:
    """Compute the attention weights of every pair, (B, H, M, N), in float32 at least."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B, H, N, E)
    score = q.to(dtype) @ k.to(dtype).mT * scale  # (B, H, M, N)
    if bias is not None:
        score = score + bias
    if plan.mask is not None:
        score = score.masked_fill(~plan.mask, float("-inf"))
    weights = score.softmax(-1)
    return weights if plan.blind is None else weights.masked_fill(plan.blind, 0.0)
