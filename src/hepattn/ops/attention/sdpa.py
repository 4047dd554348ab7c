"""Attention over dense masks by torch's scaled dot product attention, and its weights."""

# B events, H heads, M queries, N keys, E head features; P pairs within packed events, of which b of
# m queries and n keys each stand together

from collections.abc import Sequence
from itertools import groupby

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
        bias: Additive score bias (B or 1, H or 1, M, N), or of the pairs within packed
            events (H, P).
        offset_bias: Score bias of each offset (H or 1, 2K + 1).
        dropout: Probability with which an attention weight is dropped.
        scale: Factor on the scores.

    Returns:
        (B, H, M, E); zero at padded queries and where nothing is visible.
    """
    if bias is not None and bias.dim() == 2:
        return _of_packed_pairs(q, k, v, bias, plan=plan, dropout=dropout, scale=scale)
    if offset_bias is not None:
        bias = add_offset_bias(bias, offset_bias, plan)
    mask = None if plan.bias_masks and bias is not None else plan.mask
    out = _attend(q, k, v, bias, mask, dropout, scale)
    return out if plan.blind is None else out.masked_fill(plan.blind, 0.0)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    dropout: float,
    scale: float,
) -> Tensor:
    """Attend with a bias and a mask of every pair, to (B, H, M, E)."""
    if _needs_dense_attention(q, bias):
        k, v = (repeat_heads(x, q.shape[1]) for x in (k, v))  # (B, H, N, E)
        return dense_attention(q, k, v, bias=bias, mask=mask, dropout=dropout, scale=scale)
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


@torch.compiler.disable(reason="the sizes of packed events are no part of a graph")
def _of_packed_pairs(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, plan: Plan, dropout: float, scale: float
) -> Tensor:
    """Attend with a bias of the pairs within packed events (H, P), to (1, H, M, E).

    Neighbours of one size go together, so that there is neither padding nor a mask.
    """
    (_, H, _, E), Hk = q.shape, k.shape[1]
    runs = [(len(list(run)), *size) for size, run in groupby(plan.events[:, [2, 4]].tolist())]
    num_queries, num_keys = ([run[0] * run[side] for run in runs] for side in (1, 2))
    pieces = zip(
        runs,
        _split(q[0], num_queries),
        _split(k[0], num_keys),
        _split(v[0], num_keys),
        bias.split([b * m * n for b, m, n in runs], 1),
        strict=True,
    )
    outs = []
    for (b, m, n), q_part, k_part, v_part, pairs in pieces:
        q_part = q_part.view(H, b, m, E).transpose(0, 1)  # (b, H, m, E)
        k_part, v_part = (x.view(Hk, b, n, E).transpose(0, 1) for x in (k_part, v_part))
        pairs = pairs.view(H, b, m, n).transpose(0, 1)  # (b, H, m, n)
        out = _attend(q_part, k_part, v_part, pairs, None, dropout, scale)  # (b, H, m, E)
        outs.append(out.transpose(1, 2).flatten(0, 1))  # (b m, H, E)
    num_padded = q.shape[2] - sum(num_queries)
    if num_padded or not outs:
        outs.append((outs[0] if outs else q).new_zeros(num_padded, H, E))
    return torch.cat(outs).transpose(0, 1).unsqueeze(0)


def _split(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Cut the tokens of a sequence (H, N, E) into pieces; what is left is padding."""
    return x.split([*sizes, x.shape[1] - sum(sizes)], 1)[:-1]


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
