"""The order in which an event's tokens attend: sorted by a key, with registers among them."""

# B events, R registers, N tokens, D features, H heads

import torch
from torch import Tensor
from torch.nn import functional as F

from hepattn.ops.attention import Registers, register_places
from hepattn.ops.sort import invert, sort_order, take


class Arrangement:
    """Bring what belongs to the tokens of a batch into the order of attention, and back.

    Args:
        valid: True for real tokens (B, N), real ones first.
        key: What to sort the tokens by (B, N); they keep their order by default.
        registers: Which places belong to registers.
    """

    def __init__(self, valid: Tensor, key: Tensor | None, registers: Registers) -> None:
        B, N = valid.shape
        self.num_registers = R = registers.num
        self.valid = torch.cat([valid.new_ones(B, R), valid], 1)  # (B, R + N)
        # Entry p of the order says what comes p-th: register r as r, token n as R + n. None if
        # that is p.
        self.order = None
        if registers.stride is not None:
            is_register = torch.zeros_like(self.valid)
            is_register.scatter_(1, register_places(valid.sum(1), registers), True)
            count = is_register.cumsum(1)  # registers up to here
            place = torch.arange(R + N, device=valid.device)
            self.order = torch.where(is_register, count - 1, R + place - count)  # (B, R + N)
        if key is not None:
            unsorted = torch.arange(R, device=valid.device).expand(B, -1)
            chain = torch.cat([unsorted, R + sort_order(key, valid)], 1)  # (B, R + N)
            self.order = chain if self.order is None else chain.gather(1, self.order)

    def tokens(self, x: Tensor, registers: Tensor | None = None) -> Tensor:
        """Arrange what each token has, (B, N, D), together with the registers' (R, D).

        Returns:
            (B, R + N, D); zero for registers by default.
        """
        if self.num_registers:
            if registers is None:
                registers = x.new_zeros(self.num_registers, x.shape[-1])
            x = torch.cat([registers.expand(x.shape[0], -1, -1).to(x.dtype), x], 1)
        return x if self.order is None else take(x, self.order)

    def pairs(self, x: Tensor) -> Tensor:
        """Arrange what each pair of tokens has, (B or 1, H or 1, N, N).

        Returns:
            (B or 1, H or 1, R + N, R + N); zero for pairs with a register.
        """
        if self.num_registers:
            x = F.pad(x, (self.num_registers, 0, self.num_registers, 0))
        if self.order is None:
            return x
        size = (self.order.shape[0], x.shape[1], *x.shape[2:])
        rows = self.order[:, None, :, None].expand(size)
        return x.expand(size).gather(2, rows).gather(3, rows.mT)

    def restore(self, x: Tensor) -> Tensor:
        """Bring the tokens of (B, R + N, D) back into the order in which they came, (B, N, D)."""
        if self.order is None:
            return x[:, self.num_registers :]
        return take(x, invert(self.order)[:, self.num_registers :])
