"""Symmetry, padding and gradients of the hypergraph autoencoder."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from experiments.hypervae_cases import NUM_SLOTS, OPTIONS, draw_batch, draw_vectors, make_net
from hepattn.experiments.hypervae.batch import make_batch
from hepattn.experiments.hypervae.distributions import Sample, compare
from hepattn.experiments.hypervae.encoder import particle_scalars
from hepattn.experiments.hypervae.model import HyperVAE
from hepattn.experiments.hypervae.objective import LossWeights, Objective, loss_terms, particle_loss
from hepattn.experiments.hypervae.topology import ConcreteTopology, Temperature, presence
from hepattn.losses.vae import FreeBits
from hepattn.ops.sets import chamfer, squared_distances
from hepattn.physics.four_vector import boost_along_z, mass_squared, rotate_about_z
from hepattn.physics.reference_frame import components, jet_tetrad

NO_FREE_BITS = Objective(
    weights=LossWeights(kl=1.0, spectra=1.0), free_bits=FreeBits(0.0), kl_warmup_epochs=0.0
)


# L-GATr maps between the scalar parts of multivectors and scalars, also where vectors go in or come
# out, whose multivectors have no such part.
UNREAD = ("linear_in.mvs2s.weight", "linear_out.s2mvs.weight", "linear_out.s2mvs.bias")


def move(vectors: Tensor) -> Tensor:
    """Boosts and rotations one after the other."""

    def turn(vectors: Tensor) -> Tensor:
        return vectors[..., [0, 3, 1, 2]]

    return turn(boost_along_z(rotate_about_z(turn(boost_along_z(vectors, 0.8)), 1.1), -0.5))


@pytest.mark.parametrize("network", ["slim", "full"])
def test_encoder_is_invariant_under_boosts_and_rotations_of_jet_and_references(
    network: str,
) -> None:
    net, batch = make_net(network, dtype=torch.float64).eval(), draw_batch(dtype=torch.float64)
    frame = net.frame_of(batch.vectors.sum(1), batch.label)
    moved_frame = frame._replace(references=move(frame.references))
    found = net.encode(batch.vectors, batch.valid, batch.graph, frame)
    moved = net.encode(move(batch.vectors), batch.valid, batch.graph, moved_frame)
    for a, b in zip(found, moved, strict=True):
        assert_close(b, a, atol=1e-10, rtol=1e-10)
    scalars = particle_scalars(batch.vectors, batch.valid, frame.references)
    again = particle_scalars(move(batch.vectors), batch.valid, moved_frame.references)
    assert_close(again, scalars, atol=1e-10, rtol=1e-10)
    alone = net.encode(move(batch.vectors), batch.valid, batch.graph, frame)
    assert (alone.mean - found.mean).abs().max() > 1e-6


@pytest.mark.parametrize("network", ["slim", "full"])
def test_decoded_particles_are_covariant_on_shell_and_have_positive_energy(network: str) -> None:
    net, batch = make_net(network, dtype=torch.float64).eval(), draw_batch(dtype=torch.float64)
    frame = net.frame_of(batch.vectors.sum(1), batch.label)
    latent, there = (
        torch.randn(6, 4).double(),
        presence(batch.valid.sum(1), NUM_SLOTS, torch.double),
    )
    torch.manual_seed(1)
    found = net.decode(latent, frame, there).vectors
    torch.manual_seed(1)  # the same noise of the particles
    moved_frame = frame._replace(references=move(frame.references))
    moved = net.decode(latent, moved_frame, there).vectors
    scale = found.abs().max()
    assert_close(moved / scale, move(found) / scale, atol=1e-10, rtol=1e-10)
    for vectors in (found, moved):
        assert (mass_squared(vectors).abs() <= 1e-10 * vectors[..., 0].square() + 1e-12).all()
        assert (vectors[..., 0][batch.valid] > 0).all()


@pytest.mark.parametrize("network", ["slim", "full"])
def test_padding_has_no_influence_on_latent_vectors_and_decoded_padding_is_zero(
    network: str,
) -> None:
    net, batch = make_net(network).eval(), draw_batch()
    frame = net.frame_of(batch.vectors.sum(1), batch.label)
    found = net.encode(batch.vectors, batch.valid, batch.graph, frame)
    vectors = batch.vectors.masked_fill(~batch.valid.unsqueeze(-1), 1e3)
    graph = batch.graph._replace(
        edges=batch.graph.edges.masked_fill(~batch.graph.edge_valid.unsqueeze(-1), 50.0),
        hyperedges=batch.graph.hyperedges.masked_fill(
            ~batch.graph.hyperedge_valid.unsqueeze(-1), -50.0
        ),
    )
    for a, b in zip(net.encode(vectors, batch.valid, graph, frame), found, strict=True):
        assert_close(a, b, rtol=0, atol=0)
    decoded = net.decode(
        torch.randn(6, 4), frame, presence(batch.valid.sum(1), NUM_SLOTS, torch.float)
    )
    assert (decoded.vectors[~batch.valid] == 0).all()


def test_latent_vector_of_a_jet_does_not_depend_on_its_batch() -> None:
    net, batch = make_net().eval(), draw_batch()
    frame = net.frame_of(batch.vectors.sum(1), batch.label)
    together = net.encode(batch.vectors, batch.valid, batch.graph, frame).mean
    one = batch.first(1)
    alone = net.encode(
        one.vectors, one.valid, one.graph, net.frame_of(one.vectors.sum(1), one.label)
    ).mean
    assert_close(alone, together[:1], atol=1e-6, rtol=1e-5)


def gradients(net: HyperVAE, name: str, objective: Objective = NO_FREE_BITS) -> set[str]:
    """Parameters that a term trains."""
    net.train()
    net.zero_grad()
    batch = draw_batch((8, 5, 4, 8, 6, 7, 3, 8, 5, 6, 7, 8))
    terms = loss_terms(objective, net, batch, net(batch), OPTIONS, 1.0, is_training=True)
    terms[name].backward()
    return {
        key for key, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }


def trainable(net: HyperVAE, *parts: str) -> set[str]:
    return {
        name
        for name, p in net.named_parameters()
        if p.requires_grad and name.startswith(parts) and not name.endswith(UNREAD)
    }


@pytest.mark.parametrize("network", ["slim", "full"])
@pytest.mark.parametrize("topology", ["categorical", "concrete"])
def test_terms_train_every_parameter_that_they_should(network: str, topology: str) -> None:
    net = make_net(network, topology)
    for term in ("particles", "consistency"):
        trained = gradients(net, term)
        assert trainable(net, "decoder") <= trained, term
        assert trainable(net, "encoder") <= trained, term
        assert (trainable(net, "topology") <= trained) == (topology == "concrete")
    for term in ("edges", "hyperedges", "columns", "shapes", "spectra"):
        assert trainable(net, "decoder") <= gradients(net, term), term
    assert trainable(net, "topology") <= gradients(net, "numbers")
    assert trainable(net, "encoder") <= gradients(net, "kl")
    assert trainable(net, "topology", "encoder.mean") <= gradients(net, "count")
    assert trainable(net, "jet_head", "encoder") <= gradients(net, "jet")


def test_presence_term_trains_the_relaxed_topology() -> None:
    net = make_net(topology="concrete")
    assert trainable(net, "topology") <= gradients(net, "presence")


def test_distributions_of_reconstructed_jets_train_the_encoder() -> None:
    net = make_net()
    objective = dataclasses.replace(NO_FREE_BITS, compared="posterior")
    assert trainable(net, "encoder", "decoder") <= gradients(net, "columns", objective)


@pytest.mark.parametrize("name", ["edges", "hyperedges", "columns", "shapes", "spectra"])
def test_distributions_are_equal_at_truth_and_apart_when_jets_are_wider(name: str) -> None:
    vectors, valid = draw_vectors([8, 6, 7, 8, 5, 8, 8, 7])
    true = Sample(vectors, valid)

    def distance(stretch: float) -> float:
        tetrad = jet_tetrad(vectors.sum(1))
        seen = components(vectors, tetrad)
        seen[..., 2:] *= 1 + stretch  # away from the axis
        wide = make_batch(
            seen @ tetrad, valid, torch.zeros(8), torch.ones(8), torch.arange(8), OPTIONS
        ).vectors
        order = torch.randperm(8)
        return getattr(compare(Sample(wide[order], valid[order]), true, OPTIONS), name).item()

    assert distance(0.0) == pytest.approx(0.0, abs=2e-3)
    assert 0.02 < distance(0.3) < distance(0.6)


@pytest.mark.parametrize("kind", ["chamfer", "sliced", "hungarian"])
def test_particle_loss_vanishes_at_truth_and_grows_with_a_shift(kind: str) -> None:
    net, batch = make_net(), draw_batch()
    objective = Objective(set_distance=kind)

    def loss(factor: float) -> float:
        decoded = net.decode(
            torch.zeros(6, 4),
            net.frame_of(batch.vectors.sum(1), batch.label),
            presence(batch.valid.sum(1), NUM_SLOTS, torch.float),
        )._replace(vectors=batch.vectors * factor)
        torch.manual_seed(0)
        return particle_loss(objective, net, batch, decoded).item()

    assert loss(1.0) == pytest.approx(0.0, abs=1e-9)
    assert 0 < loss(1.1) < loss(1.2)


def test_particle_loss_is_the_chamfer_distance_with_energy_counting_twice() -> None:
    net, batch = make_net(), draw_batch()
    outputs = net.eval()(batch)
    tetrad = jet_tetrad(batch.vectors.sum(1))
    total = []
    for jet in range(len(batch.label)):
        there = outputs.reconstructed.presence.valid[jet]
        true, found = (
            components(x[jet : jet + 1], tetrad[jet : jet + 1])[0] / net.energy_scale
            for x in (batch.vectors, outputs.reconstructed.vectors)
        )
        true, found = true[batch.valid[jet]], found[there]
        cost = squared_distances(true[None], found[None], (2.0, 1.0, 1.0, 1.0))[0]
        total.append(cost.amin(0).mean() + cost.amin(1).mean())
    found = particle_loss(Objective(), net, batch, outputs.reconstructed)
    assert_close(found, torch.stack(total).mean())


def test_options_of_the_particle_loss_act() -> None:
    net, batch = make_net(), draw_batch()
    decoded = net(batch).reconstructed
    plain = particle_loss(Objective(), net, batch, decoded)
    for options in ({"huber": 1e-3}, {"pt_power": 1.0}, {"energy_weight": 1.0}):
        assert particle_loss(Objective(**options), net, batch, decoded) != plain
    with pytest.raises(ValueError, match=r"pt_power=1.0 acts in set_distance='chamfer' alone"):
        Objective(pt_power=1.0, set_distance="hungarian")
    with pytest.raises(ValueError, match="nothing else teaches"):
        LossWeights(count=0.0)


def test_relaxed_choices_harden_as_the_temperature_falls() -> None:
    topology = ConcreteTopology(4, NUM_SLOTS, schedule=Temperature(5.0, 0.5, 0.98))
    jet, count = torch.randn(200, 4), torch.full((200,), 5)
    gradient = {}
    for epoch in (0.0, 500.0):
        topology.zero_grad()
        torch.manual_seed(0)
        weight = topology.train_presence(jet, count, epoch).weight
        assert_close(weight.detach(), (weight > 0.5).float())
        weight.sum().backward()
        gradient[epoch] = topology.net[-1].bias.grad.abs().sum()
    assert gradient[500.0] > 2 * gradient[0.0]


def test_auxiliary_terms_are_left_out_of_the_validation_unless_asked_for() -> None:
    net, batch = make_net(), draw_batch()
    outputs = net(batch)
    auxiliary = {"edges", "hyperedges", "columns", "shapes", "numbers"}
    for asked in (False, True):
        objective = Objective(auxiliary_in_validation=asked)
        terms = loss_terms(objective, net, batch, outputs, OPTIONS, 1.0, is_training=False)
        assert (auxiliary <= set(terms)) == asked
        assert bool(auxiliary & set(terms)) == asked


def test_terms_of_weight_zero_are_left_out() -> None:
    net, batch = make_net(), draw_batch()
    weights = LossWeights(edges=0.0, kl=0.0, particles=0.0)
    terms = loss_terms(Objective(weights), net, batch, net(batch), OPTIONS, 1.0, is_training=True)
    assert set(terms) == {
        "hyperedges",
        "columns",
        "shapes",
        "jet",
        "consistency",
        "count",
        "numbers",
    }


def test_divergence_has_its_full_weight_after_the_warm_up() -> None:
    net, batch = make_net(), draw_batch()
    outputs = net(batch)
    objective = dataclasses.replace(NO_FREE_BITS, kl_warmup_epochs=10.0)
    values = [
        loss_terms(objective, net, batch, outputs, OPTIONS, epoch, False)["kl"].item()
        for epoch in (0.0, 5.0, 10.0, 20.0)
    ]
    assert values == pytest.approx([0.0, values[2] / 2, values[2], values[2]])


@pytest.mark.parametrize("topology", ["categorical", "concrete"])
def test_distribution_of_numbers_is_that_of_samples(topology: str) -> None:
    net = make_net(topology=topology).topology
    with torch.no_grad():
        net.net[-1].bias.copy_(torch.linspace(2, -2, NUM_SLOTS))
    jet = torch.randn(1, 9).expand(40_000, -1)
    counts = net.choose(jet, net.draw(jet)).valid.sum(1)
    shares = torch.bincount(counts, minlength=NUM_SLOTS + 1)[1:] / len(jet)
    assert_close(net.distribution(jet[:1]), shares, atol=0.01, rtol=0)


def test_only_a_share_of_a_training_batch_is_encoded() -> None:
    net, batch = make_net(), draw_batch()
    net.encoded_share = 0.5
    outputs = net.train()(batch)
    assert len(outputs.posterior.mean) == 3
    assert len(outputs.generated.vectors) == 6
    loss_terms(Objective(), net, batch, outputs, OPTIONS, 1.0, True)
    assert len(net.eval()(batch).posterior.mean) == 6


def test_chamfer_needs_presence_of_both() -> None:
    cost = torch.rand(1, 2, 3)
    assert chamfer(cost, torch.zeros(1, 2), torch.ones(1, 3)).item() == 0
