"""Exact banded attention, linear in the number of tokens in time and memory.

Each event is handled by itself over its own real tokens. Its queries are cut into blocks, each of
which needs only the keys within reach; tensors of every pair of tokens never exist.
"""

# B events, H heads, N tokens, E head features

from collections.abc import Iterator

import torch
from torch import Tensor

from hepattn.ops.attention.band import (
    accumulation_dtype,
    band_mask,
    block_backward,
    block_forward,
)
from hepattn.ops.attention.pattern import Full, Window
from hepattn.ops.attention.plan import Plan
from hepattn.ops.attention.tile import Tile, tiles

# Small blocks waste fewer pairs outside the band, large ones make better matrix products. The
# backward gains from larger ones the wider the window is.
FORWARD_BLOCK = 32
BACKWARD_BLOCKS = (32, 128)
# Pairs of a query and a key, over all heads, that one call of a block kernel handles. Enough calls
# in parallel, little memory between calls.
MAX_PAIRS = 2**22


def local(q: Tensor, k: Tensor, v: Tensor, *, plan: Plan, scale: float) -> Tensor:
    """Attend within each event's window.

    Args:
        q: Queries (B, H, N, E).
        k: Keys (B, Hk, N, E), with Hk dividing H.
        v: Values (B, Hk, N, E).
        plan: The batch's plan for self-attention.
        scale: Factor on the scores.

    Returns:
        (B, H, N, E); zero at padded tokens.
    """
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))  # (B, H, N, E)
    pattern = plan.pattern
    if isinstance(pattern, Full):
        # A window that reaches from end to end.
        pattern = Window(2 * max(q.shape[2], 1))
    out, _ = _local_forward(
        q, k, v, plan.lengths_tensor, pattern.half, pattern.wrap, pattern.num_registers, scale
    )
    return out


@torch.library.custom_op("hepattn::local_attention", mutates_args=())
def _local_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    half: int,
    wrap: bool,
    num_registers: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    q, k, v = (_with_dense_features(x) for x in (q, k, v))
    out, logsumexp = _empty_results(q)
    for event, length in enumerate(lengths.tolist()):
        out[event, :, length:] = 0
        logsumexp[event, :, length:] = 0
        for tile, mask in _masked_tiles(q, length, half, wrap, num_registers, FORWARD_BLOCK):
            part, part_logsumexp = block_forward(
                tile.of_queries(q[event]),
                tile.of_keys(k[event]),
                tile.of_keys(v[event]),
                mask,
                scale,
            )
            tile_out, tile_logsumexp = (
                tile.of_queries(out[event]),
                tile.of_queries(logsumexp[event]),
            )
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
    lengths: Tensor,
    half: int,
    wrap: bool,
    num_registers: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_out, q, k, v, out = (_with_dense_features(x) for x in (grad_out, q, k, v, out))
    # Up to (block + 2 half) / block overlapping terms are summed for a key.
    dtype = accumulation_dtype(q.dtype)
    smallest, largest = BACKWARD_BLOCKS
    block = min(max(half, smallest), largest)
    grads = [torch.zeros_like(_empty_results(q)[0], dtype=dtype) for _ in range(3)]
    for event, length in enumerate(lengths.tolist()):
        for tile, mask in _masked_tiles(q, length, half, wrap, num_registers, block):
            grad_q, grad_k, grad_v = block_backward(
                tile.of_queries(grad_out[event]),
                tile.of_queries(q[event]),
                tile.of_keys(k[event]),
                tile.of_keys(v[event]),
                tile.of_queries(out[event]),
                tile.of_queries(logsumexp[event]),
                mask,
                scale,
            )
            tile.of_queries(grads[0][event]).add_(grad_q)
            tile.add_to_keys(grads[1][event], grad_k)
            tile.add_to_keys(grads[2][event], grad_v)
    grad_q, grad_k, grad_v = (x.to(q.dtype) for x in grads)
    return grad_q, grad_k, grad_v


def _masked_tiles(
    q: Tensor, length: int, half: int, wrap: bool, num_registers: int, block: int
) -> Iterator[tuple[Tile, Tensor | None]]:
    """Cut an event into tiles, with the additive mask of each."""
    band = None
    for tile in tiles(
        length,
        half=half,
        wrap=wrap,
        covers=Window(2 * half, wrap).covers(length - num_registers),
        num_registers=num_registers,
        block=block,
        max_pairs=MAX_PAIRS // q.shape[1],
    ):
        if band is None and tile.column is not None:
            band = band_mask(block, half, q.dtype, q.device)
        yield tile, None if band is None else tile.mask(band)


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


def _empty_results(q: Tensor) -> tuple[Tensor, Tensor]:
    """Make room for output and logsumexp; tokens before heads, as the output projection reads."""
    B, H, N, E = q.shape
    out = q.new_empty((B, N, H, E)).transpose(1, 2)  # (B, H, N, E)
    return out, q.new_empty((B, H, N), dtype=accumulation_dtype(q.dtype))


@_local_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    half: int,
    wrap: bool,
    num_registers: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return _empty_results(q)


@_local_backward.register_fake
def _(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    lengths: Tensor,
    half: int,
    wrap: bool,
    num_registers: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_results(q)[0], _empty_results(q)[0], _empty_results(q)[0]


def _save_for_backward(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]
) -> None:
    q, k, v, lengths, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, lengths)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad_out: Tensor, _: Tensor
) -> tuple[Tensor | None, ...]:
    # The logsumexp serves the backward alone and never leaves `local`: it has no gradient.
    grads = _local_backward(grad_out, *ctx.saved_tensors, *ctx.options)
    return *grads, None, None, None, None, None


_local_forward.register_autograd(_differentiate, setup_context=_save_for_backward)


def _register_autocast(device_type: str) -> None:
    """Cast to the region's own dtype, as torch's attention does; float64 stays as it is."""

    def rule(q: Tensor, k: Tensor, v: Tensor, *options: object) -> tuple[Tensor, Tensor]:
        dtype = torch.get_autocast_dtype(device_type)
        q, k, v = (x if x.dtype == torch.float64 else x.to(dtype) for x in (q, k, v))
        with torch.autocast(device_type, enabled=False):
            return _local_forward(q, k, v, *options)

    torch.library.impl("hepattn::local_attention", f"Autocast{device_type.upper()}")(rule)


_register_autocast("cpu")
_register_autocast("cuda")
