"""Measure the layers of a network: time, memory, operations, forward and backward."""

import copy
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._pytree import tree_leaves

from hepattn.deploy.operation_counts import NO_NODE, Counts, LayerTracker, OperationCounter
from hepattn.deploy.timing import CLOCKS, Clock

NO_COUNTS = Counts()


@dataclass(frozen=True)
class LayerProfile:
    """What one layer does itself, without the layers in it.

    Args:
        name: Its name in the network, empty for the network itself; calls are added up.
        kind: Its class.
        num_calls: Calls in a forward.
        forward_seconds: Median time of its forward without gradients, in evaluation mode.
        backward_seconds: Median time of its steps of the backward, in training mode; None if
            there was no backward.
        forward: What its forward computes and moves.
        backward: What its backward computes and moves.
    """

    name: str
    kind: str
    num_calls: int
    forward_seconds: float
    backward_seconds: float | None
    forward: Counts
    backward: Counts


@dataclass(frozen=True)
class NetworkProfile:
    """What a network does.

    Args:
        layers: Its layers, in the order of their definition.
        forward_seconds: Median time of a forward without gradients, nothing watched.
        unknown: Operations whose FLOPs are not counted, and how often they ran.
    """

    layers: list[LayerProfile]
    forward_seconds: float
    unknown: dict[str, int]


def profile_network(
    network: nn.Module,
    inputs: Sequence[Tensor],
    backward: bool = True,
    num_rounds: int = 5,
    clock: Clock = "wall",
    trace: Path | None = None,
) -> NetworkProfile:
    """Profile a network on one batch; the network stays as it is.

    Args:
        network: Any network.
        inputs: What it is called with.
        backward: Whether to profile a training step, too; of the mean of all outputs.
        num_rounds: Rounds that medians are over.
        clock: ``wall`` or ``cpu`` seconds.
        trace: File for a Chrome trace of one forward and backward; none by default.

    Raises:
        ValueError: If there are no rounds.
        FileExistsError: If the file of the trace exists.
    """
    if num_rounds < 1:
        raise ValueError(f"num_rounds={num_rounds} must be at least 1")
    if trace is not None and trace.exists():
        raise FileExistsError(f"{trace} exists; remove it or choose another name")
    network = copy.deepcopy(network).eval()
    forwards = [_time_forward(network, inputs, clock) for _ in range(num_rounds + 1)][1:]
    whole = [_time_whole(network, inputs, clock) for _ in range(num_rounds)]
    counter, num_calls = _count(network, inputs, backward=False)
    backwards = []
    if backward:
        trained, _ = _count(network, inputs, backward=True)
        counter.backward = trained.backward
        counter.unknown |= trained.unknown
        backwards = [_time_backward(network, inputs, clock) for _ in range(num_rounds + 1)][1:]
    if trace is not None:
        _write_trace(network, inputs, backward, trace)
    layers = [
        LayerProfile(
            name,
            type(layer).__name__,
            num_calls[name],
            statistics.median(times[name] for times in forwards),
            statistics.median(times[name] for times in backwards) if backward else None,
            counter.forward.get(name, NO_COUNTS),
            counter.backward.get(name, NO_COUNTS),
        )
        for name, layer in network.named_modules()
        if num_calls[name]
    ]
    return NetworkProfile(layers, statistics.median(whole), dict(counter.unknown))


@torch.no_grad()
def _time_whole(network: nn.Module, inputs: Sequence[Tensor], clock: Clock) -> float:
    now = CLOCKS[clock]
    start = now()
    network(*inputs)
    return now() - start


@torch.no_grad()
def _time_forward(network: nn.Module, inputs: Sequence[Tensor], clock: Clock) -> dict[str, float]:
    """Time of each layer without that of the layers in it."""
    now = CLOCKS[clock]
    tracker = LayerTracker(network)
    seconds: dict[str, float] = defaultdict(float)
    last = 0.0

    def switch(layer: str) -> None:
        nonlocal last
        time = now()
        seconds[layer] += time - last
        last = now()

    def enter(name: str) -> None:
        if len(tracker.stack) > 1:
            switch(tracker.stack[-2])
        else:
            nonlocal last
            last = now()

    with tracker.follow(enter, leave=switch):
        network(*inputs)
    return seconds


def _count(
    network: nn.Module, inputs: Sequence[Tensor], backward: bool
) -> tuple[OperationCounter, Counter[str]]:
    num_calls: Counter[str] = Counter()
    tracker = LayerTracker(network)
    counter = OperationCounter(tracker)
    with tracker.follow(enter=lambda name: num_calls.update([name])), counter:
        _step(network, inputs, backward)
    return counter, num_calls


def _time_backward(network: nn.Module, inputs: Sequence[Tensor], clock: Clock) -> dict[str, float]:
    """Time of the steps of the backward that each layer made."""
    now = CLOCKS[clock]
    tracker = LayerTracker(network)
    seconds: dict[str, float] = defaultdict(float)
    last = 0.0

    def begin(_: Any) -> None:
        nonlocal last
        last = now()

    def end(layer: str) -> Callable[..., None]:
        def add(*_: Any) -> None:
            seconds[layer] += now() - last

        return add

    with _training(network), tracker.follow():
        loss = _mean(network(*inputs))
        for node in _graph(loss):
            if node._sequence_nr() < NO_NODE:  # not the sum into a parameter's gradient
                node.register_prehook(begin)
                node.register_hook(end(tracker.maker(node._sequence_nr())))
        loss.backward()
    return seconds


def _write_trace(network: nn.Module, inputs: Sequence[Tensor], backward: bool, path: Path) -> None:
    ranges: list[record_function] = []

    def enter(name: str) -> None:
        ranges.append(record_function(f"layer {name or 'network'}"))
        ranges[-1].__enter__()

    def leave(_: str) -> None:
        ranges.pop().__exit__(None, None, None)

    recorder = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
    with LayerTracker(network).follow(enter, leave), recorder:
        _step(network, inputs, backward)
    path.parent.mkdir(parents=True, exist_ok=True)
    recorder.export_chrome_trace(str(path))


def _step(network: nn.Module, inputs: Sequence[Tensor], backward: bool) -> None:
    """One forward, and in training mode the backward of the mean of all outputs."""
    if backward:
        with _training(network):
            _mean(network(*inputs)).backward()
    else:
        with torch.no_grad():
            network(*inputs)


@contextmanager
def _training(network: nn.Module) -> Iterator[None]:
    network.train()
    try:
        yield
    finally:
        network.eval()
        network.zero_grad()


def _mean(outputs: Any) -> Tensor:
    leaves = (x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad)
    return torch.stack([x.float().mean() for x in leaves]).sum()


def _graph(loss: Tensor) -> Iterator[torch.autograd.graph.Node]:
    """All steps of the backward."""
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting:
        node = waiting.pop()
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)
