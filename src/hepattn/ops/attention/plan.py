"""What the backends need to know about one batch, worked out once for all layers."""

# B sequences, M queries, N keys

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hepattn.ops.attention.layout import Layout, offsets
from hepattn.ops.attention.pattern import Full, Pattern, Registers, Window


@dataclass(eq=False)
class Plan:
    """A pattern applied to one batch; made by `make_plan` or `make_packed_plan`.

    Args:
        pattern: What may attend to what.
        registers: Which tokens are registers.
        key_valid: True for real keys (B, N).
        query_valid: True for real queries (B, M); the same tensor as ``key_valid`` in
            self-attention.
        events: Where each event lies: its sequence, first query, number of queries, first key and
            number of keys (events, 5), int64 on the CPU. Compiled graphs take it as an input, so
            that a new batch does not mean a new graph. None in graphs that are exported.
        keys: Where the keys stand.
        queries: Where the queries stand; the same object as ``keys`` in self-attention.
        is_cross: Whether queries and keys are different sets.
        is_packed: Whether a sequence holds several events.
        is_padded: Whether any key or query is padding, as far as is known.
        only: Further restriction to the pairs where it is True (B, M, N).
        bias_masks: Whether a score bias is -inf wherever `mask` is False. Made once for many
            layers, it spares each of them the masking.
    """

    pattern: Pattern
    registers: Registers
    key_valid: Tensor
    query_valid: Tensor
    events: Tensor | None
    keys: Layout
    queries: Layout
    is_cross: bool = False
    is_packed: bool = False
    is_padded: bool = False
    only: Tensor | None = None
    bias_masks: bool = False
    _mask_and_blind: tuple[Tensor | None, Tensor | None] | None = field(
        default=None, init=False, repr=False
    )
    flex_tables: object | None = field(default=None, init=False, repr=False)

    @property
    def max_offset(self) -> int:
        """Largest number of tokens from a query, centred in its event, to a key that it sees."""
        if isinstance(self.pattern, Window):
            return self.pattern.half
        return max(self.key_valid.shape[1] - 1, 0)

    def restrict(self, mask: Tensor) -> "Plan":
        """Let the queries see fewer keys, as a mask that changes with every layer does.

        Args:
            mask: False where a query must not see a key (B, M, N).

        Raises:
            TypeError: If the mask is not boolean.
            ValueError: If it does not fit the plan.
        """
        if mask.dtype != torch.bool:
            raise TypeError(f"mask has dtype {mask.dtype}, must be torch.bool with True = visible")
        shape = (*self.query_valid.shape, self.key_valid.shape[1])
        if mask.shape != shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, the plan is for {shape}")
        return replace(self, only=mask if self.only is None else self.only & mask)

    def offsets(self) -> Tensor:
        """Tokens from each query's centre to each key, (B or 1, M, N); registers not counted."""
        return offsets(self.queries, self.keys, wrap=self.pattern.wrap)

    def visible(self) -> Tensor | None:
        """True where a query sees a key, (B or 1, 1, M or 1, N); None if everything is visible.

        Rows of padded queries are meaningless where the query dimension is 1; `blind` has them.
        """
        seen = None
        if isinstance(self.pattern, Window):
            seen = self.offsets().abs() <= self.pattern.half  # (B or 1, M, N)
            if self.registers.num:
                seen = seen | self.touches_register()
        if self.is_packed:
            same = self.queries.event[:, :, None] == self.keys.event[:, None, :]  # (1, M, N)
            seen = same if seen is None else seen & same
        if self.is_padded:
            real = self.key_valid[:, None, :]  # (B, 1, N)
            seen = real if seen is None else seen & real
        if self.only is not None:
            seen = self.only if seen is None else seen & self.only
        return None if seen is None else seen.unsqueeze(1)

    def touches_register(self) -> Tensor:
        """True for pairs of which one is a register, (B or 1, M, N)."""
        from_register = self.keys.is_register[:, None, :]  # (B, 1, N)
        return from_register | self.queries.is_register[:, :, None]

    @property
    def mask(self) -> Tensor | None:
        """Like `visible`, but rows that see nothing see everything; None if all is visible.

        A softmax over nothing is NaN in some kernels, forward or backward. Such rows are computed
        on what is there and their outputs replaced by zero, which also stops their gradients.
        Made at the first use and kept for the other layers.
        """
        return self._dense()[0]

    @property
    def blind(self) -> Tensor | None:
        """True for queries whose output is zero, (B or 1, 1, M, 1); None if there are none.

        These are padded queries and queries that see no key.
        """
        return self._dense()[1]

    def _dense(self) -> tuple[Tensor | None, Tensor | None]:
        # A functools.cached_property holds a lock that torch.compile cannot trace.
        if self._mask_and_blind is None:
            mask = blind = None
            visible = self.visible()
            if visible is not None:
                sees = visible.any(-1, keepdim=True)  # (B or 1, 1, M or 1, 1)
                mask = visible | ~sees
                if self._some_see_nothing():
                    blind = ~(sees & self.query_valid[:, None, :, None])
            self._mask_and_blind = (mask, blind)
        return self._mask_and_blind

    def _some_see_nothing(self) -> bool:
        """Tell whether padding, a restriction or a far-off centre may leave a query blind."""
        return self.is_padded or self.only is not None or self.is_cross


def check_pattern(pattern: Pattern) -> None:
    """Refuse what is not a pattern.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(pattern, Full | Window):
        raise TypeError(f"pattern={pattern!r} must be Full() or Window(...)")


def check_registers(num_keys: Tensor, registers: Registers) -> None:
    """Refuse events (B,) that are too short for their registers.

    Raises:
        ValueError: If one is.
    """
    if len(num_keys) and num_keys.min() < registers.num:
        raise ValueError(
            f"an event has {num_keys.min()} real tokens, fewer than num_registers={registers.num}; "
            "registers are tokens of every event and always valid"
        )
