"""Plans for packed events, one after the other in a single sequence."""

# M queries, N keys

from collections.abc import Sequence

import torch
from torch import Tensor

from hepattn.ops.attention.layout import NO_EVENT, make_layout, query_layout
from hepattn.ops.attention.pattern import Pattern, Registers
from hepattn.ops.attention.plan import Plan, check_pattern, check_registers


def make_packed_plan(
    pattern: Pattern,
    lengths: Sequence[int],
    query_lengths: Sequence[int] | None = None,
    *,
    num_tokens: int | None = None,
    num_queries: int | None = None,
    registers: Registers = Registers(),  # noqa: B008 (frozen)
    centres: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Plan:
    """Prepare one sequence that holds several events, one after the other, without padding between.

    No token sees one of another event.

    Args:
        pattern: What may attend to what within each event.
        lengths: Keys of each event, its registers included.
        query_lengths: Queries of each event; None for self-attention.
        num_tokens: Keys of the sequence (1, N); those after the last event are padding. As many
            as the events have by default.
        num_queries: Queries of the sequence (1, M), likewise.
        registers: Which of each event's keys are registers.
        centres: Place of each query among the keys of its event (1, M), see `make_plan`.
        device: Where the data is.

    Raises:
        TypeError: If the pattern is unknown or centres have the wrong dtype.
        ValueError: If lengths do not fit the tokens or each other, or an event is shorter than its
            registers.
    """
    check_pattern(pattern)
    is_cross = query_lengths is not None
    if is_cross and len(query_lengths) != len(lengths):
        raise ValueError(
            f"query_lengths has {len(query_lengths)} events, lengths {len(lengths)}; they must be "
            "the same events"
        )
    if not is_cross and (centres is not None or num_queries is not None):
        raise ValueError("centres and num_queries are for cross-attention: give query_lengths too")
    key_length, key_start = _packed_lengths("lengths", lengths)
    check_registers(key_length, registers)
    num_tokens = sum(lengths) if num_tokens is None else num_tokens
    key_event, key_index = _unpack("lengths", key_length, key_start, num_tokens, device)
    on_device = torch.cat([key_length, key_length.new_zeros(1)]).to(device)  # padding is last
    keys = make_layout(key_event, key_index, on_device[key_event], registers)
    queries, query_length, query_start = keys, key_length, key_start
    if is_cross:
        query_length, query_start = _packed_lengths("query_lengths", query_lengths)
        num_queries = sum(query_lengths) if num_queries is None else num_queries
        event, index = _unpack("query_lengths", query_length, query_start, num_queries, device)
        count = torch.cat([query_length, query_length.new_zeros(1)]).to(device)[event]
        num_keys = on_device[event] - registers.num
        queries = query_layout(index, event, count, num_keys, centres)
    rows = torch.zeros_like(key_length)
    return Plan(
        pattern=pattern,
        registers=registers,
        key_valid=keys.event >= 0,
        query_valid=queries.event >= 0,
        events=torch.stack([rows, query_start, query_length, key_start, key_length], 1),
        keys=keys,
        queries=queries,
        is_cross=is_cross,
        is_packed=True,
        is_padded=num_tokens > sum(lengths)
        or (is_cross and queries.event.shape[1] > sum(query_lengths)),
    )


def _packed_lengths(name: str, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Lengths of packed events and where each begins, on the host."""
    length = torch.tensor(list(lengths), dtype=torch.int64)
    if (length < 0).any():
        raise ValueError(f"{name}={list(lengths)} must not be negative")
    return length, length.cumsum(0) - length


def _unpack(
    name: str, length: Tensor, start: Tensor, num_tokens: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Event of each token of a packed sequence and its place there, each (1, N)."""
    total = int(length.sum())
    if num_tokens < total:
        raise ValueError(f"{num_tokens} tokens cannot hold {name} that add up to {total}")
    event = torch.repeat_interleave(torch.arange(len(length)), length)  # (total,)
    index = torch.arange(total) - start[event]
    padding = num_tokens - total
    event = torch.nn.functional.pad(event, (0, padding), value=NO_EVENT)
    index = torch.nn.functional.pad(index, (0, padding))
    return event[None].to(device), index[None].to(device)
