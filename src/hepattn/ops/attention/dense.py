"""Attention with a dense additive bias that needs gradients, such as ParT's pairwise bias.

Scores exist for one chunk of queries at a time, small enough to stay in the processor's cache, and
are computed again in the backward. Besides the bias, its gradient and the pattern of dropout there
is no tensor of every pair.
"""

# B events, H heads, M queries, N keys, E head features; b, h, m of them in a chunk

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from hepattn.ops.attention.autocast import register_autocast
from hepattn.ops.attention.band import accumulation_dtype

# Pairs of a query and a key, over events and heads, of one chunk: 2 MB of float32, on the CPU the
# fastest of 2^16 to 2^21.
CHUNK_PAIRS = 2**19
# The pattern of dropout is drawn from whole numbers of 16 bits.
DROPOUT_STEPS = 2**16

# Events and heads, or events, heads and queries.
Chunk = tuple[slice, ...]


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scale: float,
) -> Tensor:
    """Attend with a bias for every query-key pair.

    The backward makes a gradient of the bias only where one is needed. There are no second
    derivatives.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, H, N, E).
        v: Values (B, H, N, E).
        bias: Additive score bias (B or 1, H or 1, M or 1, N or 1), in any floating dtype. Finite
            or -inf, where masked as well; each query needs a visible key without -inf.
        mask: True where a query sees a key (B or 1, H or 1, M or 1, N); every query must see at
            least one. None if everything is visible.
        dropout: Probability below 1 with which a weight is dropped, rounded to 16 bits. The
            others grow, so that the mean stays. Costs one byte a pair until the backward.
        scale: Factor on the scores.

    Returns:
        (B, H, M, E), with zero gradients at masked pairs.
    """
    # Drawing is an operator of its own: the one that computes depends on its arguments alone, and
    # activation checkpointing repeats the pattern by putting back the generator's state.
    num_dropped = min(round(dropout * DROPOUT_STEPS), DROPOUT_STEPS - 1)
    kept = _draw_kept(q.detach(), k.detach(), num_dropped) if num_dropped else None
    kept_share = 1 - num_dropped / DROPOUT_STEPS
    return _dense_forward(q, k, v, bias, mask, kept, kept_share, scale)


@torch.library.custom_op(
    "hepattn::draw_kept_pairs", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def _draw_kept(q: Tensor, k: Tensor, num_dropped: int) -> Tensor:
    """Draw which pairs keep their weight, (B, H, M, N), from torch's own generator.

    One draw of 64 bits serves four pairs; measured four times faster than torch's bernoulli.
    """
    kept = _empty_pairs(q, k)
    words = torch.empty(-(-kept.numel() // 4), dtype=torch.int64, device=q.device)
    numbers = words.random_(-(2**63), None).view(torch.int16)[: kept.numel()]
    first_kept = torch.iinfo(torch.int16).min + num_dropped
    return torch.ge(numbers.view(kept.shape), first_kept, out=kept)


@torch.library.custom_op("hepattn::dense_attention", mutates_args=())
def _dense_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    kept: Tensor | None,
    kept_share: float,
    scale: float,
) -> Tensor:
    out = _empty_tokens(q)
    hidden = _additive(mask, accumulation_dtype(q.dtype))
    room = _empty_chunks(q, k)
    with torch.autocast(q.device.type, enabled=False):
        for heads, rows in _chunks(q, k):
            k_part, v_part = _prepare(k[heads]), _prepare(v[heads])  # (b, h, N, E)
            for chunk in rows:
                q_part = _prepare(q[chunk]) * scale  # (b, h, m, E)
                weight = _weights(q_part, k_part, bias, hidden, chunk, room)  # (b, h, m, N)
                if kept is None:
                    out[chunk] = weight @ v_part  # (b, h, m, E)
                else:
                    weight.mul_(_as_numbers(kept[chunk]))
                    out[chunk] = (weight @ v_part).div_(kept_share)
    return out


@torch.library.custom_op("hepattn::dense_attention_backward", mutates_args=())
def _dense_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    kept: Tensor | None,
    out: Tensor,
    kept_share: float,
    scale: float,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_q, grad_k, grad_v = (_empty_tokens(x) for x in (q, k, v))
    dtype = accumulation_dtype(q.dtype)
    hidden = _additive(mask, dtype)
    is_full = bias.shape == (*q.shape[:3], k.shape[2])
    grad_bias = bias.new_empty(bias.shape if needs_bias else 0, dtype=dtype)
    if not is_full:
        grad_bias.zero_()
    room = _empty_chunks(q, k)
    with torch.autocast(q.device.type, enabled=False):
        for heads, rows in _chunks(q, k):
            k_part, v_part = _prepare(k[heads]), _prepare(v[heads])  # (b, h, N, E)
            totals: Sequence[Tensor] = ()
            for chunk in rows:
                q_part = _prepare(q[chunk]) * scale  # (b, h, m, E)
                grad = _prepare(grad_out[chunk])  # (b, h, m, E)
                # The softmax's backward subtracts sum_j p_j dL/dp_j, which is <grad_out, out>.
                shift = (grad * out[chunk]).sum(-1, keepdim=True)  # (b, h, m, 1)
                weight = _weights(q_part, k_part, bias, hidden, chunk, room)  # (b, h, m, N)
                grad_score = _shaped(room[0], weight.shape)
                if kept is None:
                    torch.matmul(grad, v_part.mT, out=grad_score).sub_(shift)
                else:
                    grad = grad / kept_share
                    torch.matmul(grad, v_part.mT, out=grad_score)
                    grad_score.mul_(_as_numbers(kept[chunk])).sub_(shift)
                if needs_bias and is_full:
                    grad_score = torch.mul(grad_score, weight, out=grad_bias[chunk])
                else:
                    grad_score.mul_(weight)
                    if needs_bias:
                        total = grad_bias[_of_broadcast(bias, chunk)]
                        total.add_(grad_score.sum_to_size(total.shape))
                if kept is not None:
                    weight.mul_(_as_numbers(kept[chunk]))
                grad_q[chunk] = (grad_score @ k_part).mul_(scale)  # (b, h, m, E)
                # Transposed, as products are faster with the wide matrix, as it is, on the right.
                shares = (q_part.mT @ grad_score, grad.mT @ weight)  # twice (b, h, E, N)
                totals = (
                    [x.add_(y) for x, y in zip(totals, shares, strict=True)] if totals else shares
                )
            grad_k[heads], grad_v[heads] = (x.mT for x in totals)
    return grad_q, grad_k, grad_v, grad_bias.to(bias.dtype)


def _chunks(q: Tensor, k: Tensor) -> Iterator[tuple[Chunk, list[Chunk]]]:
    """Cut all pairs into chunks: of several events, else heads of an event, else rows of a head.

    Yields:
        Events and heads that share their keys, and the chunks of queries of these.
    """
    events, heads, queries = (
        [slice(i, i + step) for i in range(0, max(size, 1), step)]
        for size, step in zip(q.shape, _chunk_shape(q, k), strict=False)
    )
    for part in product(events, heads):
        yield part, [(*part, rows) for rows in queries]


def _chunk_shape(q: Tensor, k: Tensor) -> tuple[int, int, int]:
    """Choose how many events, heads and queries the largest chunk has."""
    B, H, M, _ = q.shape
    N = k.shape[2]
    b, h, m = (CHUNK_PAIRS // max(pairs, 1) for pairs in (H * M * N, M * N, N))
    return max(min(b, B), 1), max(min(h, H), 1), max(min(m, M), 1)


def _weights(
    q: Tensor, k: Tensor, bias: Tensor, hidden: Tensor | None, chunk: Chunk, room: Tensor
) -> Tensor:
    """Compute attention weights (b, h, m, N) of a chunk's scaled queries (b, h, m, E).

    They lie in the second half of ``room``; its first half is free afterwards.
    """
    score, weight = (_shaped(half, (*q.shape[:3], k.shape[2])) for half in room)
    torch.matmul(q, k.mT, out=score)
    score.add_(bias[_of_broadcast(bias, chunk)])
    if hidden is not None:
        score.add_(hidden[_of_broadcast(hidden, chunk)])
    return torch.softmax(score, -1, out=weight)


def _shaped(memory: Tensor, shape: Sequence[int]) -> Tensor:
    return memory[: prod(shape)].view(shape)


def _of_broadcast(x: Tensor, chunk: Chunk) -> Chunk:
    """Find a chunk in a tensor whose dimensions may be 1 for all of it."""
    return tuple(
        slice(None) if size == 1 else part for size, part in zip(x.shape, chunk, strict=False)
    )


def _prepare(x: Tensor) -> Tensor:
    """Lay a chunk's tokens out for matrix products, in the dtype of sums."""
    return x.to(accumulation_dtype(x.dtype)).contiguous()


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn visible into 0 and masked into -inf: to add is much faster than to select."""
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))


def _as_numbers(kept: Tensor) -> Tensor:
    """View booleans as 0 and 1: torch multiplies by bytes faster than by booleans."""
    return kept.view(torch.uint8)


def _empty_tokens(x: Tensor) -> Tensor:
    """Make room for (B, H, M, E); tokens before heads, as the projections read and write."""
    B, H, M, E = x.shape
    return x.new_empty((B, M, H, E)).transpose(1, 2)  # (B, H, M, E)


def _empty_chunks(q: Tensor, k: Tensor) -> Tensor:
    """Make room for two chunks of pairs, for all chunks in turn.

    Fresh memory of this size costs the CPU more time than what is computed in it.
    """
    pairs = prod(_chunk_shape(q, k)) * k.shape[2]
    return q.new_empty((2, pairs), dtype=accumulation_dtype(q.dtype))


def _empty_pairs(q: Tensor, k: Tensor) -> Tensor:
    return q.new_empty((*q.shape[:3], k.shape[2]), dtype=torch.bool)


@_draw_kept.register_fake
def _(q: Tensor, k: Tensor, num_dropped: int) -> Tensor:
    return _empty_pairs(q, k)


@_dense_forward.register_fake
def _(q: Tensor, *inputs: object) -> Tensor:
    return _empty_tokens(q)


@_dense_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *options: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    needs_bias = options[-1]
    grad_bias = bias.new_empty(bias.shape if needs_bias else 0)
    return _empty_tokens(q), _empty_tokens(k), _empty_tokens(v), grad_bias


def _save_for_backward(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor
) -> None:
    *tensors, ctx.kept_share, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad_out: Tensor
) -> tuple[Tensor | None, ...]:
    needs_bias = ctx.needs_input_grad[3]
    grad_q, grad_k, grad_v, grad_bias = _dense_backward(
        grad_out, *ctx.saved_tensors, ctx.kept_share, ctx.scale, needs_bias
    )
    return grad_q, grad_k, grad_v, grad_bias if needs_bias else None, None, None, None, None


_dense_forward.register_autograd(_differentiate, setup_context=_save_for_backward)
# The bias keeps its dtype: it is added to scores in float32.
register_autocast("hepattn::dense_attention", _dense_forward, num_cast=3)
