"""What this machine can do at most, measured, and which of both limits a layer meets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from hepattn.deploy.timing import CLOCKS, Clock

Bound = Literal["memory", "compute"]


@dataclass(frozen=True)
class Roofline:
    """Measured limits of a machine (doi:10.1145/1498765.1498785).

    Args:
        flops_per_second: Of a large matrix product in float32.
        bytes_per_second: Of a large copy, reading and writing together.
    """

    flops_per_second: float
    bytes_per_second: float

    @property
    def ridge(self) -> float:
        """FLOPs a byte from which on the processor limits, not the memory."""
        return self.flops_per_second / self.bytes_per_second

    def bound(self, flops: float, moved: float) -> Bound:
        """Which limit some work meets.

        Args:
            flops: Its floating-point operations.
            moved: The bytes that it moves.
        """
        return "compute" if flops > self.ridge * moved else "memory"

    def seconds(self, flops: float, moved: float) -> float:
        """Least time of some work.

        Args:
            flops: Its floating-point operations.
            moved: The bytes that it moves.
        """
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


def measure_roofline(
    size: int = 1024, num_megabytes: int = 128, num_rounds: int = 7, clock: Clock = "wall"
) -> Roofline:
    """Measure the limits on the CPU, with torch's number of threads.

    Args:
        size: Rows and columns of the matrices.
        num_megabytes: Size of the copied tensor; larger than the caches.
        num_rounds: Tries; the best counts.
        clock: ``wall`` or ``cpu`` seconds.
    """
    x = torch.randn(size, size)
    source = torch.ones(num_megabytes * 1_000_000 // 4)
    target = torch.empty_like(source)
    product = min(_seconds(lambda: x @ x, clock) for _ in range(num_rounds))
    copy = min(_seconds(lambda: target.copy_(source), clock) for _ in range(num_rounds))
    return Roofline(2 * size**3 / product, 2 * source.nbytes / copy)


def _seconds(work: Callable[[], object], clock: Clock) -> float:
    now = CLOCKS[clock]
    start = now()
    work()
    return now() - start
