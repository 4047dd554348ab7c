"""What may attend to what, said independently of the kernel that computes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Full:
    """Let every query see every real key."""


@dataclass(frozen=True)
class Window:
    """Let a token see its neighbours in a sorted event.

    Token i sees token j if their distance is at most ``size // 2``. With ``wrap`` the distance is
    cyclic in the event's own number of real tokens, so that phi = -pi and phi = +pi are
    neighbours.

    Registers are the first ``num_registers`` tokens of the sequence. They are always valid, see
    every real token and are seen by every real token; distances count the tokens after them only.

    Args:
        size: Width of the window in tokens, even.
        wrap: Whether the first and the last real token of an event are neighbours.
        num_registers: Number of leading register tokens.

    Raises:
        ValueError: If ``size`` is odd or not positive, or ``num_registers`` is negative.
    """

    size: int
    wrap: bool = False
    num_registers: int = 0

    def __post_init__(self) -> None:
        if self.size <= 0 or self.size % 2:
            raise ValueError(f"window size={self.size} must be even and positive")
        if self.num_registers < 0:
            raise ValueError(f"num_registers={self.num_registers} must not be negative")

    @property
    def half(self) -> int:
        """Largest distance, in tokens, at which a token is still seen."""
        return self.size // 2

    def covers(self, num_tokens: int) -> bool:
        """Tell whether every token of an event lies in every other token's window.

        Args:
            num_tokens: Real tokens of the event, registers not counted.
        """
        reach = 2 * self.half if self.wrap else self.half
        return num_tokens <= reach + 1


Pattern = Full | Window
