"""Attention over dense masks by torch's scaled dot product attention, and its weights."""

# B events, H heads, M queries, N keys, E head features

import torch
import torch.nn.functional as F
from torch import Tensor

from hepattn.ops.attention.band import accumulation_dtype
from hepattn.ops.attention.dense import dense_attention
from hepattn.ops.attention.heads import repeat_heads
from hepattn.ops.attention.plan import Plan


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None,
    offset_bias: Tensor | None,
    dropout: float,
    scale: float,
) -> Tensor:
    """Attend with a mask of every query-key pair; torch chooses its kernel.

    With a bias that needs gradients torch falls back to its slowest kernel on the CPU, where
    `dense_attention` takes over.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, Hk, N, E), with Hk dividing H.
        v: Values (B, Hk, N, E).
        plan: The batch's plan.
        bias: Additive score bias (B or 1, H or 1, M, N).
        offset_bias: Score bias of each offset (H or 1, 2K + 1).
        dropout: Probability with which an attention weight is dropped.
        scale: Factor on the scores.

    Returns:
        (B, H, M, E); zero at padded queries and where nothing is visible.
    """
    mask = None if plan.bias_masks and bias is not None else plan.mask
    if offset_bias is not None:
        bias = add_offset_bias(bias, offset_bias, plan)
    if _needs_dense_attention(q, bias):
        k, v = (repeat_heads(x, q.shape[1]) for x in (k, v))  # (B, H, N, E)
        out = dense_attention(q, k, v, bias=bias, mask=mask, dropout=dropout, scale=scale)
    else:
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


def dense_weights(
    q: Tensor,
    k: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None,
    offset_bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Compute the attention weights of every pair, (B, H, M, N), in float32 at least."""
    dtype = accumulation_dtype(q.dtype)
    k = repeat_heads(k, q.shape[1])  # (B, H, N, E)
    score = q.to(dtype) @ k.to(dtype).mT * scale  # (B, H, M, N)
    if offset_bias is not None:
        bias = add_offset_bias(bias, offset_bias, plan)
    if bias is not None:
        score = score + bias
    if plan.mask is not None:
        score = score.masked_fill(~plan.mask, float("-inf"))
    weights = score.softmax(-1)
    return weights if plan.blind is None else weights.masked_fill(plan.blind, 0.0)


def add_offset_bias(bias: Tensor | None, offset_bias: Tensor, plan: Plan) -> Tensor:
    """Write down the bias of every pair's offset, (B or 1, H or 1, M, N), and add it to a bias."""
    reach = offset_bias.shape[1] // 2
    column = plan.offsets().clamp(-reach, reach).long() + reach  # (B or 1, M, N)
    dense = offset_bias[:, column].transpose(0, 1)  # (B or 1, H or 1, M, N)
    if plan.registers.num:
        dense = dense.masked_fill(plan.touches_register().unsqueeze(1), 0.0)
    return dense if bias is None else bias + dense


def _needs_dense_attention(q: Tensor, bias: Tensor | None) -> bool:
    wants_gradient = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    return wants_gradient and q.device.type == "cpu" and not torch.compiler.is_exporting()
