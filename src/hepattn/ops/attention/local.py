"""Exact banded attention, linear in the number of tokens in time and memory.

Each event is handled by itself over its own real tokens. Its queries are cut into blocks, each of
which needs only the keys within reach; tensors of every pair of tokens never exist.
"""

# B sequences, H heads, M queries, N keys, E head features, R registers, K largest tabled offset

from collections.abc import Iterator

import torch
from torch import Tensor

from hepattn.ops.attention.autocast import register_autocast
from hepattn.ops.attention.band import (
    accumulation_dtype,
    block_backward,
    block_forward,
    is_fused,
)
from hepattn.ops.attention.heads import repeat_heads
from hepattn.ops.attention.layout import Layout
from hepattn.ops.attention.local_sight import Sight
from hepattn.ops.attention.pattern import Window
from hepattn.ops.attention.plan import Plan
from hepattn.ops.attention.tile import Tile
from hepattn.ops.attention.tiling import tiles
from hepattn.ops.sort import group_order, invert

# Small blocks waste fewer pairs outside the band, large ones make better matrix products. The
# backward gains from larger ones the wider the window is.
FORWARD_BLOCK = 32
BACKWARD_BLOCKS = (32, 128)
# Pairs of a query and a key, over all heads, that one call of a block kernel handles. Enough calls
# in parallel, little memory between calls. The backward writes more to memory, and on the CPU it
# gains up to a fifth from a quarter of the pairs, which stay closer to the cache.
MAX_PAIRS = 2**22
CPU_BACKWARD_SHARE = 4


def local(
    q: Tensor, k: Tensor, v: Tensor, *, plan: Plan, offset_bias: Tensor | None, scale: float
) -> Tensor:
    """Attend within each event's window.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, Hk, N, E), with Hk dividing H.
        v: Values (B, Hk, N, E).
        plan: The batch's plan.
        offset_bias: Score bias of each offset (H or 1, 2K + 1).
        scale: Factor on the scores.

    Returns:
        (B, H, M, E); zero at padded queries and where nothing is visible.
    """
    key_order = query_order = centres = None
    if plan.registers.num and plan.registers.stride is not None:
        key_order = _order(plan.keys, ~plan.keys.is_register)
        k, v = _take(k, key_order), _take(v, key_order)
    if plan.is_cross:
        centres, query_order = _ascending_centres(plan)
    else:
        query_order = key_order
    if query_order is not None:
        q = _take(q, query_order)
    k, v = (repeat_heads(x, q.shape[1]) for x in (k, v))  # (B, H, N, E)
    half = plan.pattern.half if isinstance(plan.pattern, Window) else None
    out, _ = _local_forward(
        q,
        k,
        v,
        offset_bias,
        plan.events,
        centres,
        half,
        plan.pattern.wrap,
        plan.registers.num,
        scale,
    )
    return out if query_order is None else _take(out, invert(query_order))


def _ascending_centres(plan: Plan) -> tuple[Tensor, Tensor | None]:
    """Centres of the queries (B, M), and the order of the queries in which they ascend."""
    centres, order = plan.queries.place, None
    if plan.pattern.wrap:
        centres = torch.remainder(centres, plan.queries.num_keys.clamp(min=1))
    if isinstance(plan.pattern, Window):
        order = _order(plan.queries, centres)
        centres = centres.expand(len(order), -1).gather(1, order)
    return centres.expand(len(plan.query_valid), -1), order


def _order(layout: Layout, rank: Tensor) -> Tensor:
    """Order tokens (B or 1, N) by rank within their events; padding stays last."""
    event = layout.event.masked_fill(layout.event < 0, torch.iinfo(torch.int64).max)
    event, rank = torch.broadcast_tensors(event, rank)
    return group_order(rank, event)


def _take(x: Tensor, order: Tensor) -> Tensor:
    """Put the tokens of each sequence (B, H, N, E) in an order (B or 1, N)."""
    B, _, N, _ = x.shape
    row = order + N * torch.arange(B, device=x.device)[:, None]  # (B, N)
    # Whole rows of all heads, much faster than torch.gather's single numbers.
    x = x.transpose(1, 2).flatten(0, 1).index_select(0, row.flatten())  # (B N, H, E)
    return x.unflatten(0, (B, N)).transpose(1, 2)


@torch.library.custom_op("hepattn::local_attention", mutates_args=())
def _local_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offset_bias: Tensor | None,
    events: Tensor,
    centres: Tensor | None,
    half: int | None,
    wrap: bool,
    num_registers: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    q, k, v = (_with_dense_features(x) for x in (q, k, v))
    out, logsumexp = _zeros_like(q), _zeros_logsumexp(q)
    sight = Sight(half, wrap, FORWARD_BLOCK, offset_bias, q.dtype, q.device)
    max_pairs = MAX_PAIRS // q.shape[1]
    for queries, keys, tile in _tiles(q, events, centres, sight, num_registers, max_pairs):
        part, part_logsumexp = block_forward(
            tile.of_queries(q[queries]),
            tile.of_keys(k[keys]),
            tile.of_keys(v[keys]),
            sight.mask(tile),
            scale,
        )
        tile_out = tile.of_queries(out[queries])
        tile_logsumexp = tile.of_queries(logsumexp[queries])
        if tile.merges:
            part, part_logsumexp = _merge(part, part_logsumexp, tile_out, tile_logsumexp)
        tile_out.copy_(part)
        tile_logsumexp.copy_(part_logsumexp)
    return out, logsumexp


@torch.library.custom_op("hepattn::local_attention_backward", mutates_args=())
def _local_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    offset_bias: Tensor | None,
    events: Tensor,
    centres: Tensor | None,
    bias_has_gradient: bool,
    half: int | None,
    wrap: bool,
    num_registers: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_out, q, k, v, out = (_with_dense_features(x) for x in (grad_out, q, k, v, out))
    smallest, largest = BACKWARD_BLOCKS
    block = min(max(half or 0, smallest), largest)
    sight = Sight(half, wrap, block, offset_bias, q.dtype, q.device)
    # Up to (block + 2 half) / block overlapping terms are summed for a key.
    dtype = accumulation_dtype(q.dtype)
    grad_q, grad_k, grad_v = (_zeros_like(x, dtype) for x in (q, k, v))
    max_pairs = MAX_PAIRS // q.shape[1] // (CPU_BACKWARD_SHARE if q.device.type == "cpu" else 1)
    for queries, keys, tile in _tiles(q, events, centres, sight, num_registers, max_pairs):
        part_q, part_k, part_v, part_mask = block_backward(
            tile.of_queries(grad_out[queries]),
            tile.of_queries(q[queries]),
            tile.of_keys(k[keys]),
            tile.of_keys(v[keys]),
            tile.of_queries(out[queries]),
            tile.of_queries(logsumexp[queries]),
            sight.mask(tile),
            scale,
            mask_has_gradient=bias_has_gradient,
        )
        tile.of_queries(grad_q[queries]).add_(part_q)
        tile.add_to_keys(grad_k[keys], part_k)
        tile.add_to_keys(grad_v[keys], part_v)
        if part_mask is not None:
            sight.collect(tile, part_mask)
    grad_bias = sight.table_gradient() if bias_has_gradient else _empty_bias(q, offset_bias)
    grad_q, grad_k, grad_v, grad_bias = (x.to(q.dtype) for x in (grad_q, grad_k, grad_v, grad_bias))
    return grad_q, grad_k, grad_v, grad_bias


# Sequence, heads and tokens of an event.
Part = tuple[int, slice, slice]


def _tiles(
    q: Tensor,
    events: Tensor,
    centres: Tensor | None,
    sight: Sight,
    num_registers: int,
    max_pairs: int,
) -> Iterator[tuple[Part, Part, Tile]]:
    """Cut all events into tiles; where each event's queries and keys are."""
    for b, query, num_queries, key, num_keys in events.tolist():
        queries = slice(query, query + num_queries)
        for tile in tiles(
            num_queries,
            num_keys,
            sight,
            centres=None if centres is None else centres[b, queries],
            num_registers=num_registers,
            max_pairs=max_pairs,
            fused=is_fused(q),
        ):
            yield (b, slice(None), queries), (b, slice(None), slice(key, key + num_keys)), tile


def _merge(
    out: Tensor, logsumexp: Tensor, other_out: Tensor, other_logsumexp: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge attention over two disjoint sets of keys."""
    total = torch.logaddexp(logsumexp, other_logsumexp)
    share = (logsumexp - total).exp().unsqueeze(-1)
    other_share = (other_logsumexp - total).exp().unsqueeze(-1)
    return out * share + other_out * other_share, total


def _with_dense_features(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _zeros_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros in the shape of (B, H, N, E); tokens before heads, as projections read and write."""
    B, H, N, E = x.shape
    return x.new_zeros((B, N, H, E), dtype=dtype).transpose(1, 2)  # (B, H, N, E)


def _zeros_logsumexp(q: Tensor) -> Tensor:
    return q.new_zeros(q.shape[:3], dtype=accumulation_dtype(q.dtype))


def _empty_bias(q: Tensor, offset_bias: Tensor | None) -> Tensor:
    # An operator returns the same tensors always.
    return q.new_empty(0) if offset_bias is None else torch.empty_like(offset_bias)


@_local_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offset_bias: Tensor | None,
    *options: object,
) -> tuple[Tensor, Tensor]:
    return _zeros_like(q), _zeros_logsumexp(q)


@_local_backward.register_fake
def _(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    offset_bias: Tensor | None,
    *options: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *(_zeros_like(x) for x in (q, k, v)), _empty_bias(q, offset_bias)


def _save_for_backward(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]
) -> None:
    q, k, v, offset_bias, events, centres, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, offset_bias, events, centres)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad_out: Tensor, _: Tensor
) -> tuple[Tensor | None, ...]:
    # The logsumexp serves the backward alone and never leaves `local`: it has no gradient.
    wants_bias = ctx.needs_input_grad[3]
    *grads, grad_bias = _local_backward(grad_out, *ctx.saved_tensors, wants_bias, *ctx.options)
    return *grads, grad_bias if wants_bias else None, *[None] * (2 + len(ctx.options))


_local_forward.register_autograd(_differentiate, setup_context=_save_for_backward)
register_autocast("hepattn::local_attention", _local_forward, num_cast=4)
