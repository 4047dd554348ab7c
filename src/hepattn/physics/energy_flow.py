"""Energy flow polynomials: sums over the particles of a jet, one for each multigraph.

A graph stands for Σ_i1 … Σ_in z_i1 … z_in Π θ(i_k, i_l) over its n vertices, with a factor θ for
each edge between the vertices k and l (arXiv:1712.07124).
"""

# B jets, N particles, n vertices

from collections import Counter
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

Edge = tuple[int, int]
Graph = tuple[Edge, ...]
"""Edges of a multigraph without loops, vertices numbered from 0; no edge is the single vertex."""


@cache
def connected_graphs(num_edges: int) -> tuple[Graph, ...]:
    """List the connected multigraphs of a number of edges, each once.

    Args:
        num_edges: Number of edges d, parallel ones counted each.
    """
    if num_edges == 0:
        return ((),)
    found = set()
    for graph in connected_graphs(num_edges - 1):
        num = num_vertices(graph)
        pairs = [(i, j) for j in range(num + 1) for i in range(j)]  # to a new vertex as well
        found |= {_canonical((*graph, pair)) for pair in pairs}
    return tuple(sorted(found, key=lambda graph: (num_vertices(graph), graph)))


@cache
def all_graphs(max_edges: int) -> tuple[tuple[Graph, ...], ...]:
    """List the multigraphs of up to so many edges as their connected parts.

    The value of a graph in several parts is the product of the values of its parts. There are 36
    with up to four edges, the single vertex among them.

    Args:
        max_edges: Largest number of edges d.
    """
    parts = [graph for d in range(1, max_edges + 1) for graph in connected_graphs(d)]
    found: list[tuple[Graph, ...]] = [((),)]

    def extend(chosen: tuple[Graph, ...], first: int, left: int) -> None:
        for place in range(first, len(parts)):
            if len(parts[place]) <= left:
                found.append((*chosen, parts[place]))
                extend(found[-1], place, left - len(parts[place]))

    extend((), 0, max_edges)
    return tuple(found)


def num_vertices(graph: Graph) -> int:
    """Number of vertices n of a connected graph."""
    return 1 + max((vertex for edge in graph for vertex in edge), default=0)


def energy_flow_polynomial(shares: Tensor, angles: Tensor, graph: Graph) -> Tensor:
    """Compute the polynomial of a connected graph.

    Vertices are summed over one by one: a vertex with one neighbour becomes a factor of that one,
    a vertex with two neighbours a factor of their edge.

    Args:
        shares: Shares of the energy (B, N), zero at padded slots.
        angles: Angles θ between particles (B, N, N).
        graph: The graph; each part of it that is left needs a vertex with at most two neighbours,
            as all graphs of up to five edges have.

    Returns:
        (B)

    Raises:
        ValueError: If the graph has too many edges for this.
    """
    weights = dict.fromkeys(range(num_vertices(graph)), shares)
    links = {edge: angles**power if power > 1 else angles for edge, power in _powers(graph).items()}
    while len(weights) > 1:
        degree = Counter(vertex for edge in links for vertex in edge)
        vertex = min(weights, key=lambda v: degree[v])
        near = [edge for edge in links if vertex in edge]
        if len(near) > 2:
            raise ValueError(f"graph {graph} has no vertex with at most two neighbours left")
        others = [i if j == vertex else j for i, j in near]
        factors = [links.pop(edge) for edge in near]
        weight = weights.pop(vertex)
        if len(near) == 1:
            summed = (factors[0] @ weight.unsqueeze(-1)).squeeze(-1)  # (B, N)
            weights[others[0]] = weights[others[0]] * summed
            continue
        summed = (factors[0] * weight.unsqueeze(-2)) @ factors[1]  # (B, N, N)
        edge = _sorted(*others)
        summed = summed if edge == tuple(others) else summed.mT
        links[edge] = links[edge] * summed if edge in links else summed
    return next(iter(weights.values())).sum(-1)


def energy_flow_polynomials(
    shares: Tensor, angles: Tensor, graphs: tuple[tuple[Graph, ...], ...]
) -> Tensor:
    """Compute polynomials of graphs in several parts, each part once.

    Args:
        shares: Shares of the energy (B, N), zero at padded slots.
        angles: Angles θ between particles (B, N, N).
        graphs: The graphs, as ``all_graphs`` lists them.

    Returns:
        (B, graphs)
    """
    parts = {part for graph in graphs for part in graph}
    values = {part: energy_flow_polynomial(shares, angles, part) for part in parts}
    columns = [torch.stack([values[part] for part in graph]).prod(0) for graph in graphs]
    return torch.stack(columns, -1)


def _powers(graph: Graph) -> Counter[Edge]:
    return Counter(_sorted(*edge) for edge in graph)


def _sorted(i: int, j: int) -> Edge:
    return (i, j) if i < j else (j, i)


def _canonical(graph: Graph) -> Graph:
    orders = permutations(range(num_vertices(graph)))
    return min(tuple(sorted(_sorted(order[i], order[j]) for i, j in graph)) for order in orders)
