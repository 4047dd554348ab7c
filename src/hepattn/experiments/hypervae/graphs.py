"""Jets as graphs of torch_geometric, and back to padded batches."""

# B jets, N particles, n particles of a jet, E edges, H hyperedges

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepattn.experiments.hypervae.batch import HypergraphBatch
from hepattn.experiments.hypervae.hypergraph import (
    Hypergraph,
    HypergraphOptions,
    choices,
    hyperedge_sets,
)

with warnings.catch_warnings():  # with recent torch
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    from torch_geometric.data import Data


class JetGraph(Data):
    """A jet as a bipartite hypergraph, with the names of the seed.

    ``particle_x`` (n, 4): four-vectors in GeV; ``edge_index`` (2, E) and ``edge_attr`` (E, 5):
    pairs i < j; ``hyperedge_index`` (2, incidences): particle and hyperedge; ``hyperedge_x``
    (H, 5); ``y`` (4): type, pT, η and mass in GeV; ``weight`` and ``index`` of the jet. Batches of
    torch_geometric shift both rows of the incidences.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """What the indices of the next jet in a batch are shifted by."""
        if key == "hyperedge_index":
            return torch.tensor([[self.n_particles], [self.n_hyperedges]])
        if key == "edge_index":
            return self.n_particles
        return super().__inc__(key, value, *args, **kwargs)


def to_graphs(batch: HypergraphBatch, options: HypergraphOptions) -> list[JetGraph]:
    """Take a padded batch apart into graphs without padding.

    Args:
        batch: The jets.
        options: Which particles have edges and hyperedges.
    """
    N = batch.valid.shape[1]
    edge_index = choices(min(N, options.num_edge_particles), 2).T  # (2, E)
    sets = hyperedge_sets(min(N, options.num_hyperedge_particles), options.orders)
    particle = torch.tensor([place for members in sets for place in members], dtype=torch.int64)
    sizes = torch.tensor([len(members) for members in sets], dtype=torch.int64)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return [_graph(batch, jet, edge_index, particle, owner) for jet in range(len(batch.valid))]


def _graph(
    batch: HypergraphBatch, jet: int, edge_index: Tensor, particle: Tensor, owner: Tensor
) -> JetGraph:
    real, edges, hyperedges = (
        x[jet] for x in (batch.valid, batch.graph.edge_valid, batch.graph.hyperedge_valid)
    )
    kept = hyperedges[owner]
    number = hyperedges.cumsum(0) - 1
    return JetGraph(
        particle_x=batch.vectors[jet, real],
        n_particles=int(real.sum()),
        num_nodes=int(real.sum()),
        edge_index=edge_index[:, edges],
        edge_attr=batch.graph.edges[jet, edges],
        hyperedge_index=torch.stack([particle[kept], number[owner[kept]]]),
        hyperedge_x=batch.graph.hyperedges[jet, hyperedges],
        n_hyperedges=int(hyperedges.sum()),
        y=torch.cat([batch.label[jet : jet + 1].to(batch.jet.dtype), batch.jet[jet]]),
        jet_type=int(batch.label[jet]),
        weight=batch.weight[jet],
        index=batch.index[jet],
    )


def collate_graphs(
    graphs: Sequence[JetGraph], num_slots: int, options: HypergraphOptions
) -> HypergraphBatch:
    """Put graphs into a padded batch; the inverse of ``to_graphs``.

    Args:
        graphs: The jets.
        num_slots: Number of slots N of the batch.
        options: With which options the graphs were made.

    Raises:
        ValueError: If a graph does not fit the options.
    """
    B = len(graphs)
    counts = torch.tensor([graph.n_particles for graph in graphs])
    if int(counts.max()) > num_slots:
        raise ValueError(f"a graph has {int(counts.max())} particles and num_slots={num_slots}")
    valid = torch.arange(num_slots) < counts[:, None]
    num_edges = min(num_slots, options.num_edge_particles)
    edge_valid = valid[:, choices(num_edges, 2)].all(-1)
    sets = hyperedge_sets(min(num_slots, options.num_hyperedge_particles), options.orders)
    last = torch.tensor([max(members) for members in sets], dtype=torch.int64)
    hyperedge_valid = valid[:, last]  # real ones come first
    filled = {
        "particle_x": (valid, graphs[0].particle_x.shape[1]),
        "edge_attr": (edge_valid, graphs[0].edge_attr.shape[1]),
        "hyperedge_x": (hyperedge_valid, graphs[0].hyperedge_x.shape[1]),
    }
    columns = {}
    for name, (mask, width) in filled.items():
        values = torch.cat([getattr(graph, name) for graph in graphs])
        if len(values) != int(mask.sum()):
            raise ValueError(
                f"{name} of {B} graphs has {len(values)} rows and {options} ask for "
                f"{int(mask.sum())}: read them with the options they were made with"
            )
        columns[name] = values.new_zeros(*mask.shape, width)
        columns[name][mask] = values
    y = torch.stack([graph.y for graph in graphs])  # (B, 4)
    return HypergraphBatch(
        vectors=columns["particle_x"],
        valid=valid,
        graph=Hypergraph(columns["edge_attr"], edge_valid, columns["hyperedge_x"], hyperedge_valid),
        jet=y[:, 1:],
        label=torch.tensor([graph.jet_type for graph in graphs]),
        weight=torch.stack([graph.weight for graph in graphs]),
        index=torch.stack([graph.index for graph in graphs]),
    )
