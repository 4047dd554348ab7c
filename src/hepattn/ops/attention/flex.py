"""Attention by torch's FlexAttention, whose kernel masks and adds biases on the fly.

The kernel works on blocks of queries and keys. Blocks that nobody sees are skipped, and blocks in
which everybody sees everything need no mask. Both are found from the range of keys that each query
sees, without looking at pairs. arXiv:2412.05496
"""

# B sequences, H heads, M queries, N keys, E head features, I and J blocks of queries and keys

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from hepattn.ops.attention import flex_blocks
from hepattn.ops.attention.autocast import cast_to_region
from hepattn.ops.attention.pattern import Full
from hepattn.ops.attention.plan import Plan

# Kernels for GPUs multiply matrices of at least so many features.
SMALLEST_HEAD = 16
# A new kind of request compiles a new kernel; torch's own limit is meant for one network.
RECOMPILE_LIMIT = 128


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None,
    offset_bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Attend in a kernel that is compiled for the kind of request, not for its sizes.

    The first call of a kind compiles for seconds. On the CPU there is no backward.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, Hk, N, E), with Hk dividing H.
        v: Values (B, Hk, N, E).
        plan: The batch's plan.
        bias: Additive score bias (B or 1, H or 1, M, N).
        offset_bias: Score bias of each offset (H or 1, 2K + 1).
        scale: Factor on the scores.

    Returns:
        (B, H, M, E); zero at padded queries and where nothing is visible.
    """
    q, k, v = cast_to_region(q, k, v)
    if q.numel() == 0 or k.numel() == 0:
        return q * 0.0
    half = -1 if isinstance(plan.pattern, Full) else plan.pattern.half
    options = (half, plan.pattern.wrap, plan.registers.num > 0, scale)
    sight = flex_blocks.look(plan)
    if q.device.type == "cpu":
        # Leaves that require gradients are refused even where gradients are off.
        q, k, v = (x.detach() for x in (q, k, v))
        bias, offset_bias = (x if x is None else x.detach() for x in (bias, offset_bias))
        return _attend_on_cpu(q, k, v, *sight, bias, offset_bias, *options)
    num_features = q.shape[3]
    if num_features < SMALLEST_HEAD:
        q, k, v = (F.pad(x, (0, SMALLEST_HEAD - num_features)) for x in (q, k, v))
    out = _attend(q, k, v, *sight, bias, offset_bias, *options)
    return out[..., :num_features]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Tensor,
    keys: Tensor,
    blocks: list[Tensor],
    only: Tensor | None,
    bias: Tensor | None,
    offset_bias: Tensor | None,
    half: int,
    wrap: bool,
    has_registers: bool,
    scale: float,
) -> Tensor:
    """Attend; ``queries`` to ``only`` are a `FlexTables`, negative ``half`` means no window."""
    mask_mod, score_mod = _make_mods(
        queries,
        keys,
        only,
        bias,
        offset_bias,
        half=half,
        wrap=wrap,
        has_registers=has_registers,
    )
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    names += tuple(name.replace("kv_", "q_") for name in names)
    lists = dict.fromkeys(names) | dict(zip(names, blocks, strict=False))
    block_mask = BlockMask(
        seq_lengths=(q.shape[2], k.shape[2]),
        BLOCK_SIZE=(flex_blocks.BLOCK_SIZE, flex_blocks.BLOCK_SIZE),
        mask_mod=mask_mod,
        **lists,
    )
    kernel = flex_attention if torch.compiler.is_compiling() else _kernel()
    out = kernel(
        q,
        k,
        v,
        score_mod=score_mod,
        block_mask=block_mask,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
        # Not torch's kernel for few queries, which is another one for each batch size.
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
    )
    # Tokens before heads, as the output projection reads.
    return out.transpose(1, 2).contiguous().transpose(1, 2)


# Torch cannot compile its kernel for the CPU into a larger graph: nothing may be fused to its
# output, and what its mask looks up must not be computed in the same graph.
_attend_on_cpu = torch.library.custom_op(
    "hepattn::flex_attention_on_cpu", _attend, mutates_args=(), device_types="cpu"
)


@_attend_on_cpu.register_fake
def _(q: Tensor, *inputs: object) -> Tensor:
    return torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(
        1, 2
    )


@cache
def _kernel(backend: str | Callable = "inductor") -> Callable[..., Tensor]:
    """Compile the kernel; one for all sizes."""
    compiled = torch.compile(_call_kernel, dynamic=True, fullgraph=True, backend=backend)

    def attend(*args: object, **options: object) -> Tensor:
        # Beyond the limit an error is raised: without compilation every pair's score is stored.
        with torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT):
            return compiled(*args, **options)

    return attend


def _call_kernel(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
    # A function of its own does not share compiled kernels, and their limit, with other callers.
    return flex_attention(q, k, v, **options)


def _make_mods(
    queries: Tensor,
    keys: Tensor,
    only: Tensor | None,
    bias: Tensor | None,
    offset_bias: Tensor | None,
    *,
    half: int,
    wrap: bool,
    has_registers: bool,
) -> tuple[Callable[..., Tensor], Callable[..., Tensor] | None]:
    """Write visible pairs and biases as functions of one pair.

    What differs between batches and networks is looked up in tensors, numbers too, so that no
    kernel is compiled for a value.
    """
    query, key = _lookup(queries), _lookup(keys)
    event, place, num_keys, is_register = (
        torch.full((), row, device=keys.device) for row in range(4)
    )
    is_window, limit = half >= 0, keys.new_full((), half)
    reach = keys.new_full((), 0 if offset_bias is None else offset_bias.shape[1] // 2)
    # The gradients of many pairs are added up in this dtype.
    table = (
        None
        if offset_bias is None
        else _lookup(offset_bias.to(torch.promote_types(offset_bias.dtype, torch.float32)))
    )
    pair_bias, pair_visible = (None if x is None else _lookup(x) for x in (bias, only))

    def find_offset(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        offset = key(place, b, j) - query(place, b, i)
        if wrap:
            n = query(num_keys, b, i)
            offset = torch.where(offset > n // 2, offset - n, offset)
            offset = torch.where(offset < -((n - 1) // 2), offset + n, offset)
        return offset

    def touches_register(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (query(is_register, b, i) + key(is_register, b, j)) > 0

    def mask_mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        event_of_key = key(event, b, j)
        seen = (query(event, b, i) == event_of_key) & (event_of_key >= 0)
        if is_window:
            near = find_offset(b, i, j).abs() <= limit
            if has_registers:
                near = near | touches_register(b, i, j)
            seen = seen & near
        if pair_visible is not None:
            seen = seen & pair_visible(b, i, j)
        return seen

    def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        total = score
        if pair_bias is not None:
            total = total + pair_bias(b, h, i, j)
        if table is not None:
            offset = find_offset(b, i, j)
            column = torch.minimum(torch.maximum(offset, -reach), reach) + reach
            value = table(h, column)
            if has_registers:
                value = torch.where(touches_register(b, i, j), 0.0, value)
            total = total + value
        return total.to(score.dtype)

    return mask_mod, None if bias is None and table is None else score_mod


def _lookup(x: Tensor) -> Callable[..., Tensor]:
    """Look one element up; dimensions of size one are broadcast.

    Torch mixes up the names of sizes that its kernel for the CPU knows, but not those of sizes
    that are marked as unbacked, and such sizes only suit flat tensors.
    """
    sizes = [None if size == 1 else torch.full((), size, device=x.device) for size in x.shape]
    flat = x.reshape(-1)
    if flat.requires_grad:
        # What is looked up in a view of a tensor that requires gradients gets none, silently.
        flat = flat.clone()
    elif x.device.type == "cpu":
        flat = flat.view(-1)  # another object: the mark is an attribute
        torch._dynamo.decorators.mark_unbacked(flat, 0)

    def look(*indices: Tensor) -> Tensor:
        place = indices[-1] * 0
        for index, size in zip(indices, sizes, strict=True):
            if size is not None:
                place = place * size + index
        return flat[place]

    return look
