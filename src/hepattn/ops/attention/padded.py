"""Plans for padded batches, an event a row."""

# B events, M queries, N keys

import torch
from torch import Tensor

from hepattn.ops.attention.layout import NO_EVENT, make_layout, query_layout
from hepattn.ops.attention.pattern import Pattern, Registers, Window
from hepattn.ops.attention.plan import Plan, check_pattern, check_registers


def make_plan(
    pattern: Pattern,
    key_valid: Tensor,
    query_valid: Tensor | None = None,
    *,
    registers: Registers = Registers(),  # noqa: B008 (frozen)
    centres: Tensor | None = None,
) -> Plan:
    """Check a padded batch's layout once and prepare it for every attention layer.

    Args:
        pattern: What may attend to what.
        key_valid: True for real keys (B, N), real ones first; registers are real.
        query_valid: True for real queries (B, M), real ones first; None for self-attention.
        registers: Which of the keys are registers; in self-attention they are queries too.
        centres: Place of each query among the keys of its event (B, M), in cross-attention only;
            query i of m stands at ``i * n // m`` of n keys by default.

    Returns:
        The plan that `attention` takes.

    Raises:
        TypeError: If the pattern is unknown or a tensor has the wrong dtype.
        ValueError: If shapes do not fit, real tokens do not come first, an event is shorter than
            its registers, or centres are given for self-attention.
    """
    check_pattern(pattern)
    _check_valid("key_valid", key_valid)
    is_cross = query_valid is not None
    query_valid = key_valid if query_valid is None else query_valid
    if is_cross:
        _check_valid("query_valid", query_valid)
        if query_valid.shape[0] != key_valid.shape[0]:
            raise ValueError(
                f"query_valid has {query_valid.shape[0]} events, key_valid {key_valid.shape[0]}; "
                "they must be the same events"
            )
    events, is_padded = None, True
    if not torch.compiler.is_exporting():
        events = _find_events(key_valid, query_valid, registers.num)
        if not torch.compiler.is_compiling():
            is_padded = not _fills(events, key_valid, query_valid)
    num_keys, num_queries = (valid.sum(1, keepdim=True) for valid in (key_valid, query_valid))
    if not is_padded and isinstance(pattern, Window) and centres is None:
        # Every event is alike, so that one layout and one mask serve all of them.
        num_keys, num_queries = num_keys[:1], num_queries[:1]
    index = torch.arange(key_valid.shape[1], device=key_valid.device).expand(num_keys.shape[0], -1)
    event = torch.where(index < num_keys, 0, NO_EVENT)
    keys = make_layout(event, index, num_keys.expand_as(index), registers)
    queries = keys
    if is_cross:
        index = torch.arange(query_valid.shape[1], device=query_valid.device)  # (M,)
        queries = query_layout(index, 0, num_queries, num_keys - registers.num, centres)
    elif centres is not None:
        raise ValueError("centres are for cross-attention: give query_valid too")
    return Plan(
        pattern=pattern,
        registers=registers,
        key_valid=key_valid,
        query_valid=query_valid,
        events=events,
        keys=keys,
        queries=queries,
        is_cross=is_cross,
        is_padded=is_padded,
    )


@torch.library.custom_op("hepattn::find_events", mutates_args=())
def _find_events(key_valid: Tensor, query_valid: Tensor, num_registers: int) -> Tensor:
    """Count and check the tokens of each event; an operator, so that graphs do not break here."""
    num_keys = _lengths("key_valid", key_valid)
    check_registers(num_keys, Registers(num_registers))
    num_queries = num_keys
    if query_valid.data_ptr() != key_valid.data_ptr() or query_valid.shape != key_valid.shape:
        num_queries = _lengths("query_valid", query_valid)
    row, zero = torch.arange(len(num_keys)), torch.zeros_like(num_keys)
    return torch.stack([row, zero, num_queries, zero, num_keys], 1)


@_find_events.register_fake
def _(key_valid: Tensor, query_valid: Tensor, num_registers: int) -> Tensor:
    return torch.empty(key_valid.shape[0], 5, dtype=torch.int64, device="cpu")


def _fills(events: Tensor, key_valid: Tensor, query_valid: Tensor) -> bool:
    """Tell whether every token of a padded batch is real."""
    size = torch.tensor([query_valid.shape[1], key_valid.shape[1]])
    return bool((events[:, [2, 4]] == size).all())


def _lengths(name: str, valid: Tensor) -> Tensor:
    """Count each event's real tokens; one transfer to the host checks the layout as well."""
    count = valid.sum(1)  # (B,)
    first = torch.arange(valid.shape[1], device=valid.device) < count[:, None]  # (B, N)
    misplaced = (first != valid).any(1)  # (B,)
    count, misplaced = torch.stack([count, misplaced.long()]).cpu()
    if misplaced.any():
        raise ValueError(
            f"{name} of event {misplaced.tolist().index(1)} has padding before a real token; sort "
            "each event so that real tokens come first"
        )
    return count.clone()


def _check_valid(name: str, valid: Tensor) -> None:
    if valid.dtype != torch.bool:
        raise TypeError(f"{name} has dtype {valid.dtype}, must be torch.bool with True = real")
    if valid.dim() != 2:
        raise ValueError(f"{name} has shape {tuple(valid.shape)}, must be (events, tokens)")
