"""Jets as hypergraphs: edges, hyperedges, graphs of torch_geometric, readers and their faults."""

import math
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from experiments.hypervae_cases import NUM_SLOTS, OPTIONS, draw_batch, draw_vectors
from hepattn.data.error import DataError
from hepattn.data.jets.jetnet import JetNetWriter
from hepattn.experiments.hypervae.data import HypergraphData, collate
from hepattn.experiments.hypervae.graphs import collate_graphs, to_graphs
from hepattn.experiments.hypervae.hypergraph import (
    EDGE_FEATURES,
    HYPEREDGE_FEATURES,
    HypergraphOptions,
    build_hypergraph,
    choices,
    hyperedge_sets,
)
from hepattn.experiments.hypervae.jet_statistics import JetStatistics
from hepattn.physics.jet_shape import relative_particles


def test_edges_are_what_their_names_say() -> None:
    vectors, valid = draw_vectors([5])
    vectors = vectors.double()
    graph = build_hypergraph(vectors, valid, OPTIONS)
    seen = relative_particles(vectors, valid)
    share = (seen.pt / seen.pt.sum())[0]
    pairs = [(i, j) for j in range(5) for i in range(j)]
    for row, (i, j) in zip(graph.edges[0], pairs, strict=True):
        delta = math.hypot(seen.eta[0, i] - seen.eta[0, j], seen.phi[0, i] - seen.phi[0, j])
        pt = vectors[0, [i, j], 1:3].norm(dim=1)
        total = vectors[0, i] + vectors[0, j]
        mass = total[0] ** 2 - total[1:].square().sum()
        expected = {
            "ln_eec": (share[i] * share[j]).log().item(),
            "ln_delta": math.log(delta),
            "ln_kt": math.log(pt.min() * delta),
            "ln_z": math.log(pt.min() / pt.sum()),
            "ln_m2": math.log(mass),
        }
        assert row.tolist() == pytest.approx([expected[name] for name in EDGE_FEATURES], abs=1e-2)


def test_hyperedges_are_what_their_names_say() -> None:
    vectors, valid = draw_vectors([5])
    vectors = vectors.double()
    graph = build_hypergraph(vectors, valid, OPTIONS)
    seen = relative_particles(vectors, valid)
    share = (seen.pt / seen.pt.sum())[0]
    sets = hyperedge_sets(4, (3, 4))
    assert sorted(sets) == sorted([*combinations(range(4), 3), *combinations(range(4), 4)])
    for row, members in zip(graph.hyperedges[0], sets, strict=True):
        sides = sorted(
            math.hypot(seen.eta[0, i] - seen.eta[0, j], seen.phi[0, i] - seen.phi[0, j])
            for i, j in combinations(members, 2)
        )
        total = vectors[0, list(members)].sum(0)
        expected = {
            "ln_eec": share[list(members)].log().sum().item(),
            "ln_longest": math.log(sides[-1]),
            "ln_middle": math.log(sides[(len(sides) - 1) // 2]),
            "ln_shortest": math.log(sides[0]),
            "ln_m": 0.5 * math.log(total[0] ** 2 - total[1:].square().sum()),
        }
        found = [expected[name] for name in HYPEREDGE_FEATURES]
        assert row.tolist() == pytest.approx(found, abs=1e-2)


def test_edges_of_coincident_particles_and_empty_jets_are_finite_with_gradients() -> None:
    vectors, valid = draw_vectors([4, 0, 1])
    vectors[0, 1] = vectors[0, 0]
    vectors.requires_grad_()
    graph = build_hypergraph(vectors, valid, OPTIONS)
    assert graph.edges.isfinite().all()
    (graph.edges.sum() + graph.hyperedges.sum()).backward()
    assert vectors.grad.isfinite().all()
    assert (graph.edges[1:] == 0).all()
    assert not graph.edge_valid[1:].any()


def test_edges_have_gradients_after_an_evaluation_was_the_first_to_build_any() -> None:
    choices.cache_clear()
    vectors, valid = draw_vectors([8, 5])
    with torch.inference_mode():
        build_hypergraph(vectors, valid, OPTIONS)
    vectors.requires_grad_()
    graph = build_hypergraph(vectors, valid, OPTIONS)
    (graph.edges.sum() + graph.hyperedges.sum()).backward()
    assert vectors.grad.abs().sum() > 0


def test_real_edges_and_hyperedges_come_first() -> None:
    graph = draw_batch().graph
    for valid in (graph.edge_valid, graph.hyperedge_valid):
        assert (valid[:, 1:] <= valid[:, :-1]).all()


def test_numbers_of_edges_and_hyperedges_are_capped() -> None:
    vectors, valid = draw_vectors([8])
    graph = build_hypergraph(vectors, valid, HypergraphOptions(6, 5, (3,)))
    assert graph.edges.shape == (1, 15, 5)
    assert graph.hyperedges.shape == (1, 10, 5)
    none = build_hypergraph(vectors, valid, HypergraphOptions(6, 5, ()))
    assert none.hyperedges.shape == (1, 0, 5)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="num_edge_particles=1"):
        HypergraphOptions(1)
    with pytest.raises(ValueError, match=r"orders=\(5,\)"):
        HypergraphOptions(orders=(5,))
    with pytest.raises(ValueError, match="num_hyperedge_particles=3 must be at least 4"):
        HypergraphOptions(num_hyperedge_particles=3, orders=(4,))


def test_graphs_and_padded_batches_are_the_same_jets() -> None:
    batch = draw_batch()
    graphs = to_graphs(batch, OPTIONS)
    back = collate_graphs(graphs, NUM_SLOTS, OPTIONS)
    for name, value in batch._asdict().items():
        if name == "graph":
            for a, b in zip(back.graph, value, strict=True):
                assert_close(a, b, rtol=0, atol=0)
        else:
            assert_close(getattr(back, name), value, rtol=0, atol=0)


def test_graphs_have_incidences_of_their_hyperedges() -> None:
    graph = to_graphs(draw_batch((4,)), OPTIONS)[0]
    assert (graph.n_particles, graph.n_hyperedges) == (4, 5)
    assert graph.edge_index.T.tolist() == [[0, 1], [0, 2], [1, 2], [0, 3], [1, 3], [2, 3]]
    for number, members in enumerate(hyperedge_sets(4, (3, 4))):
        particle, owner = graph.hyperedge_index
        assert particle[owner == number].tolist() == list(members)


def test_batches_of_torch_geometric_shift_incidences() -> None:
    from torch_geometric.data import Batch

    graphs = to_graphs(draw_batch((4, 3)), OPTIONS)
    both = Batch.from_data_list(graphs)
    assert both.particle_x.shape == (7, 4)
    assert both.hyperedge_index[0].max() == 6
    assert both.hyperedge_index[1].max() == 5
    assert both.edge_index.max() == 6


def test_graphs_of_other_options_are_refused() -> None:
    graphs = to_graphs(draw_batch(), OPTIONS)
    with pytest.raises(ValueError, match="read them with the options they were made with"):
        collate_graphs(graphs, NUM_SLOTS, HypergraphOptions(3, 4, (3,)))
    with pytest.raises(ValueError, match="num_slots=4"):
        collate_graphs(graphs, 4, OPTIONS)


def write_jetnet(
    path: Path, num: int, seed: int = 0, classes: tuple[str, ...] = ("g", "q", "t")
) -> Path:
    torch.manual_seed(seed)
    vectors, valid = draw_vectors([3 + i % 6 for i in range(num)])
    seen = relative_particles(vectors, valid)
    particles = torch.cat([seen.columns(), valid.unsqueeze(-1)], -1).numpy()
    jets = np.stack(
        [
            np.arange(num) % len(classes),
            seen.jet[:, 1:3].norm(dim=1).numpy(),
            np.zeros(num),
            np.full(num, 50.0),
            valid.sum(1).numpy(),
        ],
        -1,
    )
    with JetNetWriter(path, NUM_SLOTS, classes) as file:
        file.add(particles[: num // 2], jets[: num // 2])
        file.add(particles[num // 2 :], jets[num // 2 :])
    return path


def make_data(path: object, **options: object) -> HypergraphData:
    return HypergraphData(
        path=path, hypergraph=OPTIONS, max_particles=NUM_SLOTS, batch_size=8, **options
    )


def test_loader_gives_the_jets_of_the_file_whichever_way(tmp_path: Path) -> None:
    data = make_data(str(write_jetnet(tmp_path / "jets.h5", 40)), split=(0.5, 0.25, 0.25))
    assert data.classes == ("g", "q", "t")
    jets = data.training_jets
    batch = next(iter(data.train_dataloader()))
    assert batch.vectors.shape == (8, NUM_SLOTS, 4)
    together = jets.batch([2, 0, 1])
    one_by_one = collate([jets[2], jets[0], jets[1]], NUM_SLOTS, OPTIONS)
    assert_close(one_by_one.vectors, together.vectors)
    assert_close(one_by_one.graph.hyperedges, together.graph.hyperedges)
    parts = [data.dataset(data.split().part(name)) for name in ("train", "val", "test")]
    rows = torch.cat([part.batch(range(len(part))).index for part in parts])
    assert sorted(rows.tolist()) == list(range(40))


def test_files_of_one_type_each_are_read_as_types(tmp_path: Path) -> None:
    paths = {}
    for number, name in enumerate(("gluon", "top")):
        path = write_jetnet(tmp_path / f"{name}.h5", 10 + number, number)
        with h5py.File(path, "a") as file:  # as published: without types
            jets, names = file["jet_features"][:, 1:], file["jet_features"].attrs["names"][1:]
            del file["jet_features"]
            file["jet_features"] = jets
            file["jet_features"].attrs["names"] = names
        paths[name] = str(path)
    data = make_data(paths, split=(1.0, 0.0, 0.0))
    assert data.classes == ("gluon", "top")
    everything = data.dataset(None)
    batch = everything.batch(range(len(everything)))
    assert batch.label.bincount().tolist() == [10, 11]
    assert batch.index.tolist() == list(range(21))


def test_statistics_are_those_of_the_training_jets(tmp_path: Path) -> None:
    data = make_data(str(write_jetnet(tmp_path / "jets.h5", 60)), split=(0.5, 0.25, 0.25))
    found = data.statistics()
    jets = data.training_jets
    batch = jets.batch(range(len(jets)))
    edges = batch.graph.edges[batch.graph.edge_valid]
    assert_close(found.edge_mean, edges.mean(0), atol=1e-4, rtol=1e-4)
    assert_close(found.energy_scale, batch.jet[:, 0].mean())
    assert found.kinematics.shape[0] == 3
    assert (found.log_share.diff() < 0.5).all()


def test_statistics_of_one_jet_are_finite() -> None:
    for value in JetStatistics.of(draw_batch((3,)), 3):
        assert value.isfinite().all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("empty", "expected"),
        ("no jets", "jet_features"),
        ("cut", "complete"),
        ("nan", "finite values"),
        ("type", "one of 0 to 2"),
    ],
)
def test_damaged_files_give_one_clear_error(damage: str, message: str, tmp_path: Path) -> None:
    path = write_jetnet(tmp_path / "jets.h5", 20)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "a") as file:
            if damage == "no jets":
                del file["jet_features"]
            elif damage == "nan":
                file["particle_features"][3, 0, 2] = np.nan
            else:
                file["jet_features"][5, 0] = 7
    with pytest.raises(DataError, match=message):
        make_data(str(path)).dataset(None)


def test_bad_jets_can_be_left_out(tmp_path: Path) -> None:
    path = write_jetnet(tmp_path / "jets.h5", 20)
    with h5py.File(path, "a") as file:
        file["particle_features"][3, 0, 2] = np.nan
    assert len(make_data(str(path), skip_bad=True).dataset(None)) == 19


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="max_particles=2 must be at least 3"):
        HypergraphData(max_particles=2)


def test_an_interrupted_file_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), JetNetWriter(tmp_path / "x.h5", 4, ["q"]):
        raise RuntimeError("interrupted")
    assert not list(tmp_path.iterdir())
