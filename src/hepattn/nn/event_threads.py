"""Evaluate the events of a batch in several threads of their own instead of operator by operator.

Torch splits each operator over its threads and waits for all of them before the next one begins.
Of the many small operators of a network for sets that makes little use of a second core. Events do
not know each other in evaluation, so each thread can as well take some of them through the whole
network; torch lets go of Python's lock while it computes.
"""

# B events, N tokens, D features of the output

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch
from torch import Tensor, nn

# A thread takes at least so many events; of fewer, calls cost too much.
MIN_EVENTS = 16
# Work on an event of n tokens is about n (n + this): pairs cost little beside the dense nets.
TOKENS_AS_PAIRS = 128


def call_in_threads(network: nn.Module, inputs: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Call a network that maps each event by itself, on events of similar length in each thread.

    It does so on the CPU in evaluation without gradients, where torch may use several threads, and
    else calls the network as it is: also in graphs, under autocast and where hooks watch a layer.
    The result is the same but for rounding.

    Args:
        network: Does not mix events in evaluation, nor change anything but what it returns.
        inputs: What it is called with; their first two dimensions are B and N.
        valid: True for real tokens (B, N), real ones first; slots that no event of a thread needs
            are cut off.

    Returns:
        What the network returns, a row of each event (B, ...).
    """
    if not _is_free(network, valid):
        return network(*inputs)
    num_threads = torch.get_num_threads()
    num_groups = min(num_threads, len(valid) // MIN_EVENTS)
    if num_groups < 2:
        return network(*inputs)
    groups = _group(valid.sum(1), num_groups)
    is_inference = torch.is_inference_mode_enabled()

    def evaluate(events: Tensor) -> Tensor:
        # Torch keeps this number for each thread, and what threads yet to come begin with.
        torch.set_num_threads(num_threads // num_groups)
        longest = max(int(valid[events].sum(1).max()), 1)
        with torch.inference_mode(is_inference), torch.no_grad():
            return network(*(x[events, :longest] for x in inputs))

    try:
        calls = [_pool(num_groups).submit(evaluate, events) for events in groups]
        wait(calls)
    finally:
        torch.set_num_threads(num_threads)
    outputs = torch.cat([call.result() for call in calls])  # (B, ...)
    return outputs.index_select(0, torch.cat(groups).argsort())


def _is_free(network: nn.Module, valid: Tensor) -> bool:
    """Tell whether events may go separate ways: what threads do not share must not matter."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    if valid.device.type != "cpu" or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return not any(
        layer.training
        or layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._compiled_call_impl is not None
        for layer in network.modules()
    )


def _group(lengths: Tensor, num_groups: int) -> list[Tensor]:
    """Cut the events, the longest (B,) first, into groups of about the same work."""
    lengths, order = lengths.sort(descending=True, stable=True)
    work = (lengths + 1.0) * (lengths + TOKENS_AS_PAIRS)
    middle = work.cumsum(0) - work / 2
    group = (middle / work.sum() * num_groups).long()  # (B,)
    sizes = group.bincount(minlength=num_groups).tolist()
    return [events for events in order.split(sizes) if len(events)]


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Keep the threads: fresh ones would have to get the memory of a batch anew."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="events")
