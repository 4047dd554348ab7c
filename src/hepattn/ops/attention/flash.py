"""Attention by the flash-attn package, over the real tokens of all events one after the other.

The package knows open windows only. A wrapped event's keys are continued by half a window on both
sides, anew in each call: tokens near an end then find the other end beyond it. arXiv:2307.08691
"""

# B sequences, H heads, M queries, N keys, E head features, T tokens of several events

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hepattn.ops.attention.autocast import cast_to_region
from hepattn.ops.attention.pattern import Full, Pattern
from hepattn.ops.attention.plan import Plan


class Group(NamedTuple):
    """Events that one call of the package attends in.

    Attributes:
        queries: Where each query stands among all of a batch's, B M (T,).
        keys: Where each key stands among all of a batch's, B N (T',); a key may stand there twice.
        query_starts: First query of each event in ``queries`` (events + 1,), in int32.
        key_starts: First key of each event in ``keys``, likewise.
        max_queries: Most queries of an event.
        max_keys: Most keys of an event.
        window: Keys seen before and after a query; -1 for all. Queries and keys are aligned at
            the end of the event.
    """

    queries: Tensor
    keys: Tensor
    query_starts: Tensor
    key_starts: Tensor
    max_queries: int
    max_keys: int
    window: tuple[int, int]


# Lists of tokens, which all layers of a batch share.
_GROUPS: WeakKeyDictionary[Plan, list[Group]] = WeakKeyDictionary()


@torch.compiler.disable
def flash(q: Tensor, k: Tensor, v: Tensor, *, plan: Plan, dropout: float, scale: float) -> Tensor:
    """Attend over the real tokens only.

    Compiled graphs break here: their shapes would depend on the events' lengths.

    Args:
        q: Queries (B, H, M, E), in half precision, as autocast makes them.
        k: Keys (B, Hk, N, E), with Hk dividing H.
        v: Values (B, Hk, N, E).
        plan: The batch's plan.
        dropout: Probability with which an attention weight is dropped.
        scale: Factor on the scores.

    Returns:
        (B, H, M, E); zero at padded queries and for events without keys.

    Raises:
        ModuleNotFoundError: If flash-attn is not installed.
    """
    from flash_attn import flash_attn_varlen_func

    q, k, v = cast_to_region(q, k, v)
    if plan not in _GROUPS:
        _GROUPS[plan] = list(_make_groups(plan))
    B, H, M, E = q.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B M or B N, H or Hk, E)
    out = q * 0.0 if not _GROUPS[plan] else torch.zeros_like(q)
    for group in _GROUPS[plan]:
        part = flash_attn_varlen_func(
            q[group.queries],
            k[group.keys],
            v[group.keys],
            group.query_starts,
            group.key_starts,
            group.max_queries,
            group.max_keys,
            dropout_p=dropout,
            softmax_scale=scale,
            window_size=group.window,
        )  # (T, H, E)
        out = out.index_copy(0, group.queries, part)
    return out.view(B, M, H, E).transpose(1, 2)


def _make_groups(plan: Plan) -> Iterator[Group]:
    """Say for all events which calls they need."""
    row, query, num_queries, key, num_keys = plan.events.unbind(1)  # (events,) each
    query = query + row * plan.query_valid.shape[1]
    key = key + row * plan.key_valid.shape[1]
    exists = (num_queries > 0) & (num_keys > 0)
    for chosen, window, margin in _kinds(plan.pattern, num_keys):
        some = chosen & exists
        if not some.any():
            continue
        n, m = num_keys[some], num_queries[some]
        yield Group(
            queries=_list_tokens(query[some], m, 0).to(plan.query_valid.device),
            keys=_list_tokens(key[some], n, margin).to(plan.key_valid.device),
            query_starts=_starts(m).to(plan.query_valid.device, torch.int32),
            key_starts=_starts(n + 2 * margin).to(plan.key_valid.device, torch.int32),
            max_queries=int(m.max()),
            max_keys=int(n.max()) + 2 * margin,
            window=window,
        )


def _kinds(pattern: Pattern, num_keys: Tensor) -> Iterator[tuple[Tensor, tuple[int, int], int]]:
    """Which events (events,) attend with which window, and their keys' margin on both sides."""
    everyone, everything = torch.ones_like(num_keys, dtype=torch.bool), (-1, -1)
    if isinstance(pattern, Full):
        yield everyone, everything, 0
    elif not pattern.wrap:
        yield everyone, (pattern.half, pattern.half), 0
    else:
        # With a margin, keys of an event that the window covers would be seen twice.
        is_covered = pattern.covers(num_keys)
        yield is_covered, everything, 0
        yield ~is_covered, (2 * pattern.half, 0), pattern.half


def _list_tokens(first: Tensor, length: Tensor, margin: int) -> Tensor:
    """List the tokens of events one after the other, each continued cyclically on both sides."""
    size = length + 2 * margin
    event = torch.repeat_interleave(size)  # (T,)
    place = torch.arange(len(event)) - _starts(size)[event] - margin
    return first[event] + torch.remainder(place, length[event])


def _starts(length: Tensor) -> Tensor:
    """Where each event starts and the last one ends (events + 1,)."""
    return torch.nn.functional.pad(length.cumsum(0), (1, 0))
