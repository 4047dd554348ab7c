"""What the backends need to know about one batch, worked out once for all layers."""

# B events, M queries, N keys

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hepattn.ops.attention.pattern import Full, Pattern, Window


@dataclass(eq=False)
class Plan:
    """A pattern applied to one batch; made by `make_plan`.

    Args:
        pattern: What may attend to what.
        key_valid: True for real keys (B, N).
        query_valid: True for real queries (B, M); the same tensor as ``key_valid`` in
            self-attention.
        lengths: Real keys of each event, on the host.
        lengths_tensor: The same numbers as an int64 tensor on the CPU (B,), which compiled graphs
            take as an input, so that a new batch does not mean a new graph.
        is_cross: Whether queries and keys are different sets.
        is_padded: Whether any key or query is padding.
    """

    pattern: Pattern
    key_valid: Tensor
    query_valid: Tensor
    lengths: tuple[int, ...]
    lengths_tensor: Tensor
    is_cross: bool
    is_padded: bool
    _mask: Tensor | None = field(default=None, init=False, repr=False)

    def visible(self) -> Tensor | None:
        """True where a query sees a key, (B or 1, 1, M or 1, N); None if everything is visible.

        Rows of padded queries are meaningless where the query dimension is 1; `blind` has them.
        """
        if isinstance(self.pattern, Full):
            if not self.is_padded:
                return None
            return self.key_valid[:, None, None, :]  # (B, 1, 1, N)
        if not self.is_padded:
            # Every event has the same length, so that one mask serves all of them.
            return _visible_in_window(self.pattern, self.key_valid[:1])
        return _visible_in_window(self.pattern, self.key_valid)

    @property
    def blind(self) -> Tensor | None:
        """True for queries whose output is zero, (B, 1, M, 1); None if there are none.

        These are padded queries and queries of events without real keys.
        """
        if not self.is_padded:
            return None
        sees = self.query_valid & self.key_valid.any(-1, keepdim=True)  # (B, M)
        return ~sees[:, None, :, None]

    @property
    def mask(self) -> Tensor | None:
        """Like `visible`, but rows that see nothing see everything; None if all is visible.

        A softmax over nothing is NaN in some kernels, forward or backward. Such rows are computed
        on what is there and their outputs replaced by zero, which also stops their gradients.
        Made at the first use and kept for the other layers.
        """
        # A functools.cached_property holds a lock that torch.compile cannot trace.
        if self._mask is None:
            visible = self.visible()
            if visible is not None:
                self._mask = visible | ~visible.any(-1, keepdim=True)
        return self._mask


def make_plan(pattern: Pattern, key_valid: Tensor, query_valid: Tensor | None = None) -> Plan:
    """Check a batch's layout once and prepare it for every attention layer.

    Args:
        pattern: What may attend to what.
        key_valid: True for real keys (B, N), real ones first.
        query_valid: True for real queries (B, M), real ones first; None for self-attention.

    Returns:
        The plan that `attention` takes.

    Raises:
        TypeError: If the pattern is unknown or a valid tensor is not boolean.
        ValueError: If shapes do not fit, real tokens do not come first, an event is shorter than
            its registers, or a window is asked for between different sets.
    """
    if not isinstance(pattern, Full | Window):
        raise TypeError(f"pattern={pattern!r} must be Full() or Window(...)")
    _check_valid("key_valid", key_valid)
    is_cross = query_valid is not None
    if query_valid is None:
        query_valid = key_valid
    else:
        _check_valid("query_valid", query_valid)
        if query_valid.shape[0] != key_valid.shape[0]:
            raise ValueError(
                f"query_valid has {query_valid.shape[0]} events, key_valid {key_valid.shape[0]}; "
                "they must be the same events"
            )
        if isinstance(pattern, Window):
            raise ValueError(
                f"{pattern} needs self-attention: distances between queries and keys of different "
                "sets are not defined; use Full() for cross-attention"
            )
    lengths = _lengths("key_valid", key_valid)
    query_lengths = _lengths("query_valid", query_valid) if is_cross else lengths
    num_registers = pattern.num_registers if isinstance(pattern, Window) else 0
    if lengths and min(lengths) < num_registers:
        raise ValueError(
            f"an event has {min(lengths)} real tokens, fewer than num_registers={num_registers}; "
            "registers lead every event and are always valid"
        )
    is_padded = any(length < key_valid.shape[1] for length in lengths)
    is_padded |= any(length < query_valid.shape[1] for length in query_lengths)
    return Plan(
        pattern=pattern,
        key_valid=key_valid,
        query_valid=query_valid,
        lengths=lengths,
        lengths_tensor=torch.tensor(lengths, dtype=torch.int64),
        is_cross=is_cross,
        is_padded=is_padded,
    )


def _check_valid(name: str, valid: Tensor) -> None:
    if valid.dtype != torch.bool:
        raise TypeError(f"{name} has dtype {valid.dtype}, must be torch.bool with True = real")
    if valid.dim() != 2:
        raise ValueError(f"{name} has shape {tuple(valid.shape)}, must be (events, tokens)")


def _lengths(name: str, valid: Tensor) -> tuple[int, ...]:
    """Count each event's real tokens; one transfer to the host checks the layout as well."""
    count = valid.sum(1)  # (B,)
    first = torch.arange(valid.shape[1], device=valid.device) < count[:, None]  # (B, N)
    misplaced = (first != valid).any(1)  # (B,)
    count, misplaced = torch.stack([count, misplaced.long()]).tolist()
    if any(misplaced):
        raise ValueError(
            f"{name} of event {misplaced.index(1)} has padding before a real token; sort each "
            "event so that real tokens come first"
        )
    return tuple(count)


def _visible_in_window(window: Window, valid: Tensor) -> Tensor:
    """Evaluate the window for every pair of tokens: (B, N) to (B, 1, N, N)."""
    index = torch.arange(valid.shape[1], device=valid.device)  # (N,)
    distance = (index[:, None] - index[None, :]).abs()  # (N, N)
    seen = distance <= window.half
    if window.wrap:
        num_real = (valid.sum(1) - window.num_registers)[:, None, None]  # (B, 1, 1)
        seen = seen | (num_real - distance <= window.half)  # (B, N, N)
    is_register = index < window.num_registers  # (N,)
    seen = seen | is_register[:, None] | is_register[None, :]
    seen = seen & valid[:, None, :] & valid[:, :, None]  # (B, N, N)
    return seen.unsqueeze(1)  # (B, 1, N, N)
