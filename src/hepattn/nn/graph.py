"""Layers on the nodes of a fixed graph, such as sensors on a hexagonal grid."""

# B events, N nodes, C channels, E edges, K directions, M columns of a table

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hepattn.nn.next_block import NeXtBlock, hide

Integers = Sequence[int] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class Edges:
    """Which nodes of a graph hand something to which, and in which direction it goes.

    Args:
        source: Node that hands over, for each edge (E).
        target: Node that receives (E), another one.
        direction: Number of the direction (E), from 1; 0 is that of a node to itself.
        num_nodes: Number of nodes N.
        num_directions: Number of directions K apart from 0; that of a hexagonal grid by default.

    Raises:
        ValueError: If the three do not fit together or a number is out of range.
    """

    source: Integers
    target: Integers
    direction: Integers
    num_nodes: int
    num_directions: int = 6

    def __post_init__(self) -> None:
        for name in ("source", "target", "direction"):
            numbers = torch.tensor(np.asarray(getattr(self, name)), dtype=torch.int64)  # a copy
            if numbers.shape != (len(self.source),):
                raise ValueError(
                    f"{name} of shape {tuple(numbers.shape)} must be one number for each of the "
                    f"{len(self.source)} edges"
                )
            low, high = (1, self.num_directions) if name == "direction" else (0, self.num_nodes - 1)
            if len(numbers) and not (low <= numbers.min() and numbers.max() <= high):
                raise ValueError(
                    f"{name} is {int(numbers.min())} to {int(numbers.max())}, must be {low} to "
                    f"{high}"
                )
            object.__setattr__(self, name, numbers)
        if (self.source == self.target).any():
            raise ValueError("an edge leads from a node to itself; that is direction 0, left out")

    def table(self) -> tuple[Tensor, tuple[int, ...]]:
        """Arrange the edges in columns, each of one direction and with one edge a node at most.

        Returns:
            The sources (M, N), N where there is none, and the direction of each column (M).
        """
        columns: dict[tuple[int, int], Tensor] = {}
        seen: dict[tuple[int, int], int] = {}
        edges = zip(*(x.tolist() for x in (self.source, self.target, self.direction)), strict=True)
        for source, target, direction in edges:
            rank = seen.get((target, direction), 0)  # of edges alike
            seen[target, direction] = rank + 1
            empty = torch.full((self.num_nodes,), self.num_nodes)
            columns.setdefault((direction, rank), empty)[target] = source
        keys = sorted(columns)
        sources = [columns[key] for key in keys]
        table = torch.stack(sources) if sources else self.source.new_empty(0, self.num_nodes)
        return table, tuple(direction for direction, _ in keys)


class HexDepthwise(nn.Module):
    """Mix the nodes around each node, every channel for itself, with a weight for each direction.

    ``out_i = bias + weight_0 x_i + Σ weight_direction x_j`` over the edges from j to i: what a
    depthwise convolution is on a grid of squares.

    Args:
        dim: Number of channels C.
        edges: The graph.
    """

    def __init__(self, dim: int, edges: Edges) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(1 + edges.num_directions, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        table, self.directions = edges.table()
        self.register_buffer("table", table, persistent=False)  # (M, N)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Mix.

        Args:
            x: Features of the nodes (B, N, C).
            visible: True for visible nodes (B, N); None if all are.

        Returns:
            Like ``x``; zero at masked nodes.
        """
        x = hide(x, visible)
        padded = nn.functional.pad(x, (0, 0, 0, 1))  # (B, N + 1, C)
        out = torch.addcmul(self.bias, x, self.weight[0])
        for sources, direction in zip(self.table, self.directions, strict=True):
            out = torch.addcmul(out, padded.index_select(1, sources), self.weight[direction])
        return hide(out, visible)


class GraphAttention(nn.Module):
    """Let each node weigh its neighbours and itself by attention, whatever the direction.

    It is the GATv2 convolution (arXiv:2105.14491) of torch_geometric. Nodes that are masked take no
    part in the softmax.

    Args:
        dim: Number of channels C.
        edges: The graph.
        num_heads: Number of heads, which share the channels.

    Raises:
        ValueError: If the heads do not divide the channels.
    """

    def __init__(self, dim: int, edges: Edges, num_heads: int = 4) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide dim={dim}")
        self.conv = _gatv2()(dim, dim // num_heads, num_heads, add_self_loops=False)
        loops = torch.arange(edges.num_nodes)
        ends = torch.stack([torch.cat([x, loops]) for x in (edges.source, edges.target)])
        self.register_buffer("ends", ends, persistent=False)  # (2, E + N)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Attend; arguments and result as in `HexDepthwise.forward`."""
        num_events, num_nodes, dim = x.shape
        nodes = hide(x, visible).flatten(0, 1)  # (B N, C)
        start = num_nodes * torch.arange(num_events, device=x.device).view(1, -1, 1)
        source, target = self.ends.unsqueeze(1) + start  # (B, E + N) each
        if visible is not None:
            # What comes from a masked node goes to one more node, which nobody looks at.
            nodes = torch.cat([nodes, nodes.new_zeros(1, dim)])
            seen = visible.index_select(1, self.ends[0])  # (B, E + N)
            target = torch.where(seen, target, num_events * num_nodes)
        out = self.conv(nodes, torch.stack([source, target]).flatten(1))
        return hide(out[: num_events * num_nodes].view(x.shape), visible)


class HexNeXtBlock(NeXtBlock):
    """A block of ConvNeXt V2 on the nodes of a graph (B, N, C).

    All of it is in `NeXtBlock`; the mixer is a `HexDepthwise` or a `GraphAttention`.
    """


def _gatv2() -> type[nn.Module]:
    """The layer of torch_geometric, which takes seconds to load and warns of its own torch.jit."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        from torch_geometric.nn import GATv2Conv
    return GATv2Conv
