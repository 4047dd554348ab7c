"""Which blocks of queries and keys FlexAttention has to visit, found without looking at pairs."""

# B sequences, M queries, N keys, I and J blocks of queries and keys

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hepattn.ops.attention.layout import Layout
from hepattn.ops.attention.pattern import Full
from hepattn.ops.attention.plan import Plan

# Queries and keys of a block. The kernels for GPUs cut blocks further, into powers of two.
BLOCK_SIZE = 128
# Behind every key and event, and exact as a floating-point number, which padding makes of it.
NOWHERE = torch.iinfo(torch.int32).max


class FlexTables(NamedTuple):
    """What the kernel needs to know of a plan; all tensors, so that a graph may take it in.

    Attributes:
        queries: Event, centre, number of the event's keys and whether it is a register, of each
            query (4, B or 1, M), in int32. In wrapped patterns centres lie within the event.
        keys: Likewise with the place of each key (4, B or 1, N).
        blocks: For each block of queries how many blocks of keys are seen in part, and which; how
            many are seen in full, and which. On GPUs then the same for each block of keys.
        only: True where a query may see a key (B, M, N).
    """

    queries: Tensor
    keys: Tensor
    blocks: list[Tensor]
    only: Tensor | None


def look(plan: Plan) -> FlexTables:
    """Make what the kernel needs of a plan once for all layers."""
    if plan.flex_tables is None:
        queries = plan.queries
        if plan.pattern.wrap:
            # Offsets are then shorter than the event, and cyclic ones a comparison away.
            place = torch.remainder(queries.place, queries.num_keys.clamp(min=1))
            queries = queries._replace(place=place)
        # The backward goes through the queries of each block of keys. There is none on the CPU.
        is_backward = plan.key_valid.device.type != "cpu"
        tables = (torch.stack([x.int() for x in layout]) for layout in (queries, plan.keys))
        plan.flex_tables = FlexTables(*tables, _find_blocks(plan, queries, is_backward), plan.only)
    return plan.flex_tables


def _find_blocks(plan: Plan, queries: Layout, is_backward: bool) -> list[Tensor]:
    """List the blocks in which some query sees some key but not all see all, then the latter."""
    size, num_keys, keys = BLOCK_SIZE, plan.key_valid.shape[1], plan.keys
    start = torch.arange(0, num_keys, size, device=keys.place.device)  # (J,)
    stop = start + size - 1
    touched = full = torch.zeros((), dtype=torch.bool, device=start.device)
    for first, last in _key_ranges(plan, queries):
        first, last = _by_block(first, NOWHERE), _by_block(last, -1)  # (B, I, size)
        touched = touched | (first.amin(2, True) <= stop) & (last.amax(2, True) >= start)
        full = full | (first.amax(2, True) <= start) & (last.amin(2, True) >= stop)  # (B, I, J)
    if plan.registers.num:
        of_registers = _event_range(keys, keys.is_register)  # twice (B, J)
        of_queries = _event_range(queries, queries.event >= 0)  # twice (B, I)
        touched = touched | (
            (of_registers[0][:, None, :] <= of_queries[1][:, :, None])
            & (of_registers[1][:, None, :] >= of_queries[0][:, :, None])
        )
    if plan.only is not None:
        only = F.pad(plan.only, (0, -num_keys % size, 0, -plan.only.shape[1] % size))
        only = only.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, I, size, J, size)
        touched, full = touched & only.any(4).any(2), full & only.all(4).all(2)
    choices = [touched & ~full, full]
    if is_backward:
        choices += [x.mT for x in choices]
    return [x for chosen in choices for x in _list_blocks(chosen)]


def _key_ranges(plan: Plan, queries: Layout) -> list[tuple[Tensor, Tensor]]:
    """First and last key of the ranges that each query sees, (B or 1, M) each.

    Every query sees all keys of its ranges, and no others but registers.
    """
    event, n, stride = queries.event, queries.num_keys, plan.registers.stride
    begin = torch.zeros_like(event)
    if plan.is_packed:
        begins = torch.cat([plan.events[:, 3], plan.events.new_zeros(1)])  # padding is last
        begin = begins.to(event.device, non_blocking=True)[event.clamp(min=-1)]

    def index(place: Tensor) -> Tensor:
        before = plan.registers.num
        if stride is not None:
            before = (place // stride + 1).clamp(max=before)
        return begin + place + before

    is_real = event >= 0
    everything = (begin, begin + n + plan.registers.num - 1)
    if isinstance(plan.pattern, Full):
        return [_nonempty(*everything, is_real)]
    half = plan.pattern.half
    low, high = queries.place - half, queries.place + half
    sees_all = queries.is_register
    if plan.pattern.wrap:
        sees_all = sees_all | plan.pattern.covers(n)
    is_near = is_real & ~sees_all
    near = (index(low.clamp(min=0)), index(torch.minimum(high, n - 1)))
    ranges = [_nonempty(*everything, is_real & sees_all)]
    ranges += [_nonempty(*near, is_near & (low < n) & (high >= 0))]
    if plan.pattern.wrap:
        first, last = index(torch.zeros_like(n)), index(n - 1)
        ranges += [_nonempty(index(low + n), last, is_near & (low < 0))]
        ranges += [_nonempty(first, index(high - n), is_near & (high >= n))]
    return ranges


def _nonempty(first: Tensor, last: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Let ranges that do not exist begin behind the last key and end before the first."""
    exists = exists & (first <= last)
    return torch.where(exists, first, NOWHERE), torch.where(exists, last, -1)


def _event_range(layout: Layout, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """First and last event of each block's chosen tokens, (B or 1, blocks) each."""
    first = _by_block(torch.where(chosen, layout.event, NOWHERE), NOWHERE).amin(2)
    return first, _by_block(torch.where(chosen, layout.event, -1), -1).amax(2)


def _by_block(x: Tensor, fill: int) -> Tensor:
    """Cut tokens (B, N) into blocks (B, blocks, size)."""
    return F.pad(x, (0, -x.shape[1] % BLOCK_SIZE), value=fill).unflatten(1, (-1, BLOCK_SIZE))


def _list_blocks(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Number of blocks chosen in each row (B, 1, I), and which; the others follow (B, 1, I, J)."""
    chosen = chosen.int().contiguous()
    order = chosen.argsort(dim=2, descending=True, stable=True)
    return chosen.sum(2, dtype=torch.int32).unsqueeze(1), order.int().unsqueeze(1)
