"""Optimal assignment of queries to targets, many problems at a time."""

# G problems, M queries, P targets

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Solver = Literal["scipy", "lapx"]
Solve = Callable[[np.ndarray], np.ndarray]  # costs (P, M) to the query of each target (P), -1 none

MAX_THREADS = 8  # of the default pool


@dataclass(frozen=True)
class Assignment:
    """Problems that are being solved; `submit` makes it."""

    _solutions: list[Future[np.ndarray]]
    _num_slots: int
    _device: torch.device

    def result(self) -> Tensor:
        """Wait for the solutions.

        Returns:
            Query of each target (G, P) on the device of the costs; -1 for padded targets and for
            those that got none.

        Raises:
            FloatingPointError: If a cost is NaN or infinite.
        """
        query = np.full((len(self._solutions), self._num_slots), -1, np.int64)  # (G, P)
        for row, solution in zip(query, self._solutions, strict=True):
            found = solution.result()
            row[: len(found)] = found
        return torch.from_numpy(query).to(self._device)


def assign(
    cost: Tensor,
    num_queries: Tensor,
    num_targets: Tensor,
    solver: Solver = "scipy",
    num_threads: int | None = None,
) -> Tensor:
    """Give each target its own query so that the sum of their costs is smallest.

    Where a problem has more targets than queries, each query gets its own target instead and the
    other targets get none.

    Args:
        cost: Cost of each query for each target (G, M, P); padded entries are not looked at.
        num_queries: Real queries of each problem, which come first (G).
        num_targets: Real targets of each problem, which come first (G).
        solver: ``scipy`` solves on several threads at a time; ``lapx``, of the extra ``eval``,
            holds the interpreter's lock while it solves.
        num_threads: Threads to solve on; one a processor by default, at most 8.

    Returns:
        Query of each target (G, P) on the device of the costs; -1 for padded targets and for
        those that got none.

    Raises:
        ModuleNotFoundError: If the solver's package is not installed.
        ValueError: If shapes or numbers contradict each other.
        FloatingPointError: If a cost is NaN or infinite.
    """
    return submit(cost, num_queries, num_targets, solver, num_threads).result()


def submit(
    cost: Tensor,
    num_queries: Tensor,
    num_targets: Tensor,
    solver: Solver = "scipy",
    num_threads: int | None = None,
) -> Assignment:
    """Begin what `assign` does, on other threads; the costs may change afterwards.

    Args:
        cost: As in `assign`.
        num_queries: As in `assign`.
        num_targets: As in `assign`.
        solver: As in `assign`.
        num_threads: As in `assign`.

    Returns:
        An object whose ``result()`` waits for the answer of `assign`.

    Raises:
        ModuleNotFoundError: If the solver's package is not installed.
        ValueError: If shapes or numbers contradict each other.
    """
    solve = _solver(solver)
    pool = _pool(num_threads)
    sizes = _sizes(cost, num_queries, num_targets)
    problems, wait = _gather(cost.detach(), sizes)
    solutions = [
        pool.submit(_solve_checked, solve, problem, wait, f"{index} of {len(problems)}")
        for index, problem in enumerate(problems)
    ]
    return Assignment(solutions, cost.shape[2], cost.device)


def _sizes(cost: Tensor, num_queries: Tensor, num_targets: Tensor) -> list[tuple[int, int]]:
    """Return the real targets and queries of each problem."""
    sizes = []
    for name, number, most in (
        ("num_targets", num_targets, cost.shape[2]),
        ("num_queries", num_queries, cost.shape[1]),
    ):
        if number.shape != cost.shape[:1]:
            raise ValueError(
                f"{name} has the shape {tuple(number.shape)}, but cost {tuple(cost.shape)} holds "
                f"{len(cost)} problems; give one number a problem"
            )
        sizes.append(number.tolist())
        if any(not 0 <= size <= most for size in sizes[-1]):
            raise ValueError(
                f"{name}={sizes[-1]} must be between 0 and {most}, "
                f"what cost {tuple(cost.shape)} has room for"
            )
    return list(zip(*sizes, strict=True))


def _gather(
    cost: Tensor, sizes: list[tuple[int, int]]
) -> tuple[list[np.ndarray], Callable[[], None]]:
    """Copy the real costs (P, M) of each problem to the host in one transfer.

    Targets come first, because the solvers are fastest with fewer rows than columns.

    Returns:
        The problems, and what to call before they are read.
    """
    lengths = [rows * columns for rows, columns in sizes]
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    flat = torch.empty(sum(lengths), dtype=dtype, device=cost.device)
    for piece, problem, (rows, columns) in zip(flat.split(lengths), cost, sizes, strict=True):
        piece.view(rows, columns).copy_(problem[:columns, :rows].T)
    if cost.is_cuda:
        host = torch.empty(flat.shape, dtype=dtype, pin_memory=True)
        host.copy_(flat, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(cost.device))
        wait = copied.synchronize
    else:
        host = flat.cpu()
        wait = _nothing
    pieces = host.split(lengths)
    return [piece.view(size).numpy() for piece, size in zip(pieces, sizes, strict=True)], wait


def _nothing() -> None:
    return


def _solve_checked(
    solve: Solve, cost: np.ndarray, wait: Callable[[], None], name: str
) -> np.ndarray:
    wait()
    if not np.isfinite(cost).all():  # lapx would go on silently
        target, query = np.argwhere(~np.isfinite(cost))[0]
        raise FloatingPointError(
            f"assignment problem {name} has the cost {cost[target, query]} for query {query} and "
            f"target {target}, but costs must be finite; look for what is not finite in the "
            "predictions and targets that they are made of"
        )
    if cost.size == 0:
        return np.full(len(cost), -1)
    return solve(cost)


@cache
def _pool(num_threads: int | None) -> ThreadPoolExecutor:
    """Keep one pool of each size, so that a training step starts no threads."""
    if num_threads is None:
        return _pool(min(os.cpu_count() or 1, MAX_THREADS))
    if num_threads < 1:
        raise ValueError(f"num_threads={num_threads} must be positive")
    return ThreadPoolExecutor(num_threads, thread_name_prefix="assignment")


def _solver(name: Solver) -> Solve:
    if name == "scipy":
        return _solve_scipy
    if name != "lapx":
        raise ValueError(f"solver={name!r} must be 'scipy' or 'lapx'")
    try:
        from lap import lapjv
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "solver='lapx' needs lapx: pip install 'hepattn[eval]', or choose solver='scipy'"
        ) from error
    return partial(_solve_lapx, lapjv)


def _solve_scipy(cost: np.ndarray) -> np.ndarray:
    query = np.full(len(cost), -1)
    target, found = linear_sum_assignment(cost)
    query[target] = found
    return query


def _solve_lapx(lapjv: Callable[..., tuple[np.ndarray, ...]], cost: np.ndarray) -> np.ndarray:
    query, _ = lapjv(cost, extend_cost=True, return_cost=False)
    return query
