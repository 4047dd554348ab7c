"""Count what each layer of a network computes and moves, forward and backward."""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

OUTSIDE = ""  # what no layer of the network does: the network's own forward
NO_NODE = 2**63  # from here on, numbers of backward steps that no forward made


class LayerTracker:
    """Which layer is at work, and which layer made which step of the backward.

    Args:
        network: The network; it is followed inside ``follow()``.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.stack: list[str] = []
        self.numbers: list[int] = []  # from this backward step on …
        self.names: list[str] = []  # … this layer made them

    @property
    def current(self) -> str:
        """Name of the innermost layer whose forward runs."""
        return self.stack[-1] if self.stack else OUTSIDE

    def maker(self, number: int) -> str:
        """Name of the layer that made a step of the backward."""
        place = bisect.bisect_right(self.numbers, number) - 1
        return self.names[place] if place >= 0 and number < NO_NODE else OUTSIDE

    @contextmanager
    def follow(
        self,
        enter: Callable[[str], None] = lambda name: None,
        leave: Callable[[str], None] = lambda name: None,
    ) -> Iterator["LayerTracker"]:
        """Follow the forwards of all layers.

        Args:
            enter: Called with the name of a layer that begins.
            leave: Called with the name of a layer that is done.
        """

        def begin(name: str) -> None:
            self.stack.append(name)
            self._note()
            enter(name)

        def end(name: str) -> None:
            leave(name)
            self.stack.pop()
            self._note()

        handles = []
        for name, layer in self.network.named_modules():
            before, after = _hooks(name, begin, end)
            handles += [
                layer.register_forward_pre_hook(before),
                layer.register_forward_hook(after, prepend=True),
            ]
        try:
            with torch.compiler.set_stance("force_eager"):  # graphs know nothing of hooks
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def _note(self) -> None:
        self.numbers.append(torch._C._autograd._get_sequence_nr())
        self.names.append(self.current)


def _hooks(
    name: str, begin: Callable[[str], None], end: Callable[[str], None]
) -> tuple[Callable[..., None], Callable[..., None]]:
    return lambda layer, args: begin(name), lambda layer, args, output: end(name)


@dataclass
class Counts:
    """What one layer does itself, without the layers in it.

    Args:
        flops: Floating-point operations of its matrix products, two a multiply-add.
        moved: Bytes that its operations read and write, each by itself.
        allocated: Bytes of the tensors that it makes.
        num_uncounted: Operations that compute, but whose FLOPs are not known.
    """

    flops: int = 0
    moved: int = 0
    allocated: int = 0
    num_uncounted: int = 0


class OperationCounter(TorchDispatchMode):
    """Add up what the operations do, by layer, forward and backward.

    Views move nothing. Operations beside matrix products and attention count no FLOPs, though
    their bytes count; custom operations whose FLOPs depend on the data are in ``unknown``.

    Args:
        tracker: Which layer is at work.
    """

    def __init__(self, tracker: LayerTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.forward: dict[str, Counts] = {}
        self.backward: dict[str, Counts] = {}
        self.unknown: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        node = torch._C._current_autograd_node()
        if node is None:
            counts = self.forward.setdefault(self.tracker.current, Counts())
        else:
            layer = self.tracker.maker(node._sequence_nr())
            counts = self.backward.setdefault(layer, Counts())
        flops = self._flops(func, args, kwargs or {}, out)
        if flops is None:
            counts.num_uncounted += 1
            self.unknown[str(func.overloadpacket)] += 1
        else:
            counts.flops += flops
        if not func.is_view:
            given = {id(x): x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
            counts.moved += sum(map(_num_bytes, given.values())) + sum(map(_num_bytes, made))
            counts.allocated += sum(_num_bytes(x) for x in made if id(x) not in given)
        return out

    def _flops(self, func: Any, args: tuple, kwargs: dict, out: Any) -> int | None:
        packet = func.overloadpacket
        if packet in flop_registry:
            return flop_registry[packet](*args, **kwargs, out_val=out)
        formula = FORMULAS.get(str(packet))
        if formula is not None:
            return formula(args, out)
        return 0 if func.namespace in ("aten", "prim", "prims") else None


def _int8_product(args: tuple, out: Tensor) -> int:
    return 2 * args[0].numel() * out.shape[-1]


def _attention(factor: int, first: int) -> Callable[[tuple, Any], int]:
    """Operations of dense attention: products of M queries with N keys, E features each."""

    def formula(args: tuple, out: Any) -> int:
        q, k = args[first], args[first + 1]  # (B, H, M, E), (B, H, N, E)
        return factor * 2 * math.prod(q.shape) * k.shape[-2]

    return formula


def _none(args: tuple, out: Any) -> int:
    return 0


# Two products forward; five backward, one of which repeats the scores.
FORMULAS: dict[str, Callable[[tuple, Any], int]] = {
    "onednn.qlinear_pointwise": _int8_product,
    "hepattn.find_events": _none,
    "hepattn.draw_kept_pairs": _none,
    "hepattn.dense_attention": _attention(2, 0),
    "hepattn.dense_attention_backward": _attention(5, 1),
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention(2, 0),
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": _attention(5, 1),
}


def _num_bytes(x: Tensor) -> int:
    """Bytes that an operation reads of a tensor: those of its memory, if it is expanded."""
    try:
        return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())
    except (NotImplementedError, RuntimeError):  # packed or sparse
        return x.numel() * x.element_size()
