"""Energy flow polynomials against sums over all vertices."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from hepattn.physics.energy_flow import (
    Graph,
    all_graphs,
    connected_graphs,
    energy_flow_polynomial,
    energy_flow_polynomials,
    num_vertices,
)


def brute_force(shares: torch.Tensor, angles: torch.Tensor, graph: Graph) -> torch.Tensor:
    total = shares.new_zeros(len(shares))
    for places in product(range(shares.shape[1]), repeat=num_vertices(graph)):
        term = shares[:, list(places)].prod(1)
        for i, j in graph:
            term = term * angles[:, places[i], places[j]]
        total = total + term
    return total


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(2, 4, 4, dtype=torch.float64)
    return torch.rand(2, 4, dtype=torch.float64), angles + angles.mT


def test_there_are_as_many_graphs_as_published() -> None:
    # arXiv:1712.07124, table 2: connected multigraphs by edges, and all up to d edges
    assert [len(connected_graphs(d)) for d in range(6)] == [1, 1, 2, 5, 12, 33]
    assert [len(all_graphs(d)) for d in range(5)] == [1, 2, 5, 13, 36]


def test_five_connected_graphs_have_four_vertices_and_four_edges() -> None:
    assert sum(num_vertices(graph) == 4 for graph in connected_graphs(4)) == 5


@pytest.mark.parametrize("graph", [g for d in range(5) for g in connected_graphs(d)], ids=str)
def test_polynomial_is_the_sum_over_its_vertices(graph: Graph) -> None:
    shares, angles = draw()
    assert_close(energy_flow_polynomial(shares, angles, graph), brute_force(shares, angles, graph))


def test_value_of_several_parts_is_their_product() -> None:
    shares, angles = draw()
    graphs = all_graphs(2)
    found = energy_flow_polynomials(shares, angles, graphs)
    edge = energy_flow_polynomial(shares, angles, ((0, 1),))
    assert_close(found[:, graphs.index((((0, 1),), ((0, 1),)))], edge**2)


def test_graph_without_a_vertex_of_two_neighbours_is_refused() -> None:
    complete = tuple((i, j) for j in range(4) for i in range(j))
    with pytest.raises(ValueError, match="at most two neighbours"):
        energy_flow_polynomial(*draw(), complete)
