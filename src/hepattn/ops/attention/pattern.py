"""What may attend to what, said independently of the kernel that computes it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Let every query see every real key.

    Args:
        wrap: Whether distances are cyclic in the event's own number of real tokens. They matter
            for biases that depend on the distance, and for nothing else.
    """

    wrap: bool = False


@dataclass(frozen=True)
class Window:
    """Let a token see its neighbours in a sorted event.

    Token i sees token j if their distance is at most ``size // 2``. With ``wrap`` the distance is
    cyclic in the event's own number of real tokens, so that phi = -pi and phi = +pi are
    neighbours. In cross-attention the distance is that of key j from the query's centre.

    Args:
        size: Width of the window in tokens, even.
        wrap: Whether the first and the last real token of an event are neighbours.

    Raises:
        ValueError: If ``size`` is odd or not positive.
    """

    size: int
    wrap: bool = False

    def __post_init__(self) -> None:
        if self.size <= 0 or self.size % 2:
            raise ValueError(f"window size={self.size} must be even and positive")

    @property
    def half(self) -> int:
        """Largest distance, in tokens, at which a token is still seen."""
        return self.size // 2

    def covers(self, num_tokens: int | Tensor) -> bool | Tensor:
        """Tell whether every token of an event lies in every other token's window.

        Args:
            num_tokens: Real tokens of the event, registers not counted; or of several events.
        """
        reach = 2 * self.half if self.wrap else self.half
        return num_tokens <= reach + 1


@dataclass(frozen=True)
class Registers:
    """Say which tokens of an event are registers: they see and are seen by all its tokens.

    Distances do not count registers. They are real tokens to every kernel and always valid.

    Args:
        num: Registers of each event.
        stride: Real tokens between one register and the next: register r stands before the real
            token r * stride, and after the last one in an event that is shorter. All registers
            lead the event by default.

    Raises:
        ValueError: If ``num`` is negative or ``stride`` not positive.
    """

    num: int = 0
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.num < 0:
            raise ValueError(f"num_registers={self.num} must not be negative")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"register_stride={self.stride} must be at least 1")


Pattern = Full | Window
