"""Attention of small blocks of queries, the step that banded attention is made of.

A block kernel's forward returns the output and the logarithm of the softmax's denominator. Two
results over disjoint sets of keys merge exactly from these two; and given the merged ones, the
backward of each part by itself is exact, because the probabilities are exp(score - logsumexp).
"""

# G blocks, H heads, M queries of a block, N keys of a block, E head features

from functools import cache

import torch
from torch import Tensor

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_BACKWARD = getattr(
    torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None
)
_FLASH_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Name the dtype for sums of many terms: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def is_fused(q: Tensor) -> bool:
    """Tell whether the kernels of blocks without a mask store no scores."""
    return _flash_serves(q)


def block_forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend within blocks; every query must see at least one key.

    Args:
        q: Queries (G, H, M, E).
        k: Keys (G, H, N, E).
        v: Values (G, H, N, E).
        mask: Additive mask of every block, (M, N) or (1, H or 1, M, N); None if everything is
            visible.
        scale: Factor on the scores.

    Returns:
        Output (G, H, M, E) and logsumexp of the scores (G, H, M), the latter at least float32.
    """
    if _flash_serves(q):
        return _FLASH(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
    return _plain_forward(q, k, v, mask, scale)


def block_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    mask: Tensor | None,
    scale: float,
    *,
    mask_has_gradient: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Differentiate `block_forward`.

    ``out`` and ``logsumexp`` may come from more keys than ``k`` has; the gradients are then this
    part's share.

    Args:
        grad_out: Gradient of the output (G, H, M, E).
        q: Queries (G, H, M, E).
        k: Keys (G, H, N, E).
        v: Values (G, H, N, E).
        out: Output (G, H, M, E).
        logsumexp: Logarithm of the softmax's denominator (G, H, M).
        mask: Additive mask of every block, (M, N) or (1, H or 1, M, N); None if everything is
            visible.
        scale: Factor on the scores.
        mask_has_gradient: Whether the mask's gradient is needed; slower.

    Returns:
        Gradients of the queries (G, H, M, E), keys and values (G, H, N, E), and of the mask, in
        its shape; None if there is none or it is not needed.
    """
    mask_has_gradient &= mask is not None
    if _flash_serves(q) and not mask_has_gradient:
        grads = _FLASH_BACKWARD(
            grad_out, q, k, v, out, logsumexp, 0.0, False, attn_mask=mask, scale=scale
        )
        return *grads, None
    # A backward may be called inside an autocast region, which would round the scores again.
    with torch.autocast(q.device.type, enabled=False):
        *grads, grad_score = _plain_backward(grad_out, q, k, v, out, logsumexp, mask, scale)
        grad_mask = grad_score.sum_to_size(mask.shape) if mask_has_gradient else None
        return *grads, grad_mask


def _plain_forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    score = _score(q, k, mask, scale)  # (G, H, M, N)
    logsumexp = score.logsumexp(-1)  # (G, H, M)
    probability = (score - logsumexp.unsqueeze(-1)).exp_()
    return (probability @ v.to(score.dtype)).to(q.dtype), logsumexp


def _plain_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    score = _score(q, k, mask, scale)  # (G, H, M, N)
    probability = score.sub_(logsumexp.unsqueeze(-1)).exp_()
    grad_out = grad_out.to(score.dtype)
    grad_v = probability.mT @ grad_out  # (G, H, N, E)
    # The softmax's backward subtracts sum_j p_j dL/dp_j, which equals <grad_out, out>.
    shift = (grad_out * out).sum(-1, keepdim=True)  # (G, H, M, 1)
    grad_score = grad_out @ v.to(score.dtype).mT  # (G, H, M, N)
    grad_score.sub_(shift).mul_(probability)
    grad_q = grad_score @ k.to(score.dtype) * scale  # (G, H, M, E)
    grad_k = grad_score.mT @ q.to(score.dtype) * scale  # (G, H, N, E)
    return grad_q, grad_k, grad_v, grad_score


def _score(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    dtype = accumulation_dtype(q.dtype)
    score = (q.to(dtype) * scale) @ k.to(dtype).mT  # (G, H, M, N)
    return score if mask is None else score.add_(mask)


def _flash_serves(q: Tensor) -> bool:
    return q.device.type == "cpu" and q.dtype in _FLASH_DTYPES and _flash_is_sound(q.dtype)


@cache
def _flash_is_sound(dtype: torch.dtype) -> bool:
    """Try torch's private CPU kernel once on a small case.

    It may be missing or change its meaning between versions of torch; what is used of it here is
    its logsumexp, masks that broadcast over blocks and heads or over blocks alone, strided
    overlapping keys, and a backward that takes a logsumexp from elsewhere.
    """
    if _FLASH is None or _FLASH_BACKWARD is None:
        return False
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(4, 3, 12, 8, generator=generator).to(dtype)
    q, grad_out = tokens[0, :, :8].unflatten(1, (2, 4)).transpose(0, 1), tokens[3, None, :, :4]
    grad_out = grad_out.expand(2, -1, -1, -1).contiguous()
    k, v = (x.unfold(1, 8, 4).permute(1, 0, 3, 2) for x in tokens[1:3])  # (2, 3, 8, 8)
    bias = torch.randn(1, 3, 6, 10, generator=generator).to(dtype)
    bias = bias.masked_fill(torch.ones(6, 10).triu(3).bool(), float("-inf"))[..., 1:5, 1:9]
    return all(_flash_agrees(grad_out, q, k, v, mask) for mask in (bias, bias[0, 0]))


def _flash_agrees(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> bool:
    out, logsumexp = _plain_forward(q, k, v, mask, 0.5)
    logsumexp += 0.25
    *expected, _ = _plain_backward(grad_out, q, k, v, out, logsumexp, mask, 0.5)
    try:
        flash_out, flash_logsumexp = _FLASH(q, k, v, 0.0, False, attn_mask=mask, scale=0.5)
        found = _FLASH_BACKWARD(
            grad_out, q, k, v, out, logsumexp, 0.0, False, attn_mask=mask, scale=0.5
        )
    except (RuntimeError, TypeError):
        return False
    pairs = zip(
        (flash_out, flash_logsumexp + 0.25, *found), (out, logsumexp, *expected), strict=True
    )
    tolerance = 20 * torch.finfo(q.dtype).eps
    return all(
        torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance) for a, b in pairs
    )
