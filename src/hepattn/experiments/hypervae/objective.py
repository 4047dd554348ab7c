"""What the autoencoder is trained for, term by term."""

# B jets, N particles, C types

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hepattn.experiments.hypervae.batch import HypergraphBatch, jet_kinematics
from hepattn.experiments.hypervae.distributions import Distances, Sample, compare
from hepattn.experiments.hypervae.hypergraph import HypergraphOptions
from hepattn.experiments.hypervae.model import Decoded, HyperVAE, Outputs
from hepattn.experiments.hypervae.topology import Presence
from hepattn.losses.vae import FreeBits, kl_weight, latent_loss, weighted_squared_error
from hepattn.ops.sets import (
    chamfer,
    hungarian,
    sinkhorn,
    sliced_wasserstein,
    squared_distances,
)
from hepattn.physics.four_vector import transverse_momentum
from hepattn.physics.reference_frame import components, jet_tetrad

SetDistance = Literal["chamfer", "sliced", "sinkhorn", "hungarian"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a term of weight 0 is left out.

    Args:
        particles: Distance between the sets of particles.
        edges: Distributions of the edges.
        hyperedges: Distributions of the hyperedges.
        columns: Distributions of the particles' own columns.
        shapes: Joint distribution of the observables of jets.
        spectra: Distributions of the mass and of energy flow polynomials; for a second stage with
            larger batches, which know more of their tails.
        jet: Jet head against pT, η and mass.
        consistency: Sum of the particles against pT, η and mass.
        count: Number of particles of each jet.
        numbers: Distribution of the number of particles of jets from the prior.
        kl: Divergence of the posterior from the prior, at the end of its warm-up.
    """

    particles: float = 200.0
    edges: float = 1.0
    hyperedges: float = 1.0
    columns: float = 30.0
    shapes: float = 1.0
    spectra: float = 0.0
    jet: float = 0.1
    consistency: float = 0.1
    count: float = 1.0
    numbers: float = 1.0
    kl: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"weight {name}={value} must not be negative")
        if not self.count:
            raise ValueError("count=0: nothing else teaches how many particles a jet has")


@dataclass(frozen=True)
class Objective:
    """Terms of the loss and their options.

    Args:
        weights: Weights of the terms.
        set_distance: How the sets of particles are compared.
        energy_weight: Weight of the energy in the squared distance of two particles.
        huber: Distances above this, in units of the energy scale, count linearly; null for none.
        pt_power: Particles count by this power α of their pT; 0 for all alike.
        jet_weights: Weights of ln pT, η and ln mass.
        free_bits: What latent dimensions may carry at no cost.
        kl_warmup_epochs: Epochs in which the weight of the divergence rises.
        compared: Which jets the distributions are those of: ``prior`` for jets decoded from the
            prior, ``posterior`` for reconstructed ones.
        power: 1 or 2, the power of differences of quantiles.
        auxiliary_in_validation: Whether distributions are compared outside the training, too.

    Raises:
        ValueError: If an option is out of range.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    set_distance: SetDistance = "chamfer"
    energy_weight: float = 2.0
    huber: float | None = None
    pt_power: float = 0.0
    jet_weights: tuple[float, float, float] = (2.5, 0.75, 2.0)
    free_bits: FreeBits = field(default_factory=FreeBits)
    kl_warmup_epochs: float = 5.0
    compared: Literal["prior", "posterior"] = "prior"
    power: int = 1
    auxiliary_in_validation: bool = False

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise ValueError(f"power={self.power} must be 1 or 2")
        if self.energy_weight <= 0 or (self.huber is not None and self.huber <= 0):
            raise ValueError(
                f"energy_weight={self.energy_weight} and huber={self.huber} must be positive"
            )
        if self.pt_power and self.set_distance != "chamfer":
            raise ValueError(
                f"pt_power={self.pt_power} acts in set_distance='chamfer' alone, not in "
                f"{self.set_distance!r}"
            )


def loss_terms(
    objective: Objective,
    net: HyperVAE,
    batch: HypergraphBatch,
    outputs: Outputs,
    options: HypergraphOptions,
    epoch: float,
    is_training: bool,
) -> dict[str, Tensor]:
    """Compute the terms, weighted.

    Args:
        objective: Terms and options.
        net: The autoencoder, for its scales.
        batch: The jets.
        outputs: What the autoencoder made of them.
        options: Which particles have edges and hyperedges.
        epoch: Epochs so far, with their fraction.
        is_training: Whether this is a training step.
    """
    weights = objective.weights
    whole, batch = batch, batch.first(len(outputs.jet))  # those that were encoded
    terms: dict[str, Tensor] = {}
    if weights.particles:
        terms["particles"] = particle_loss(objective, net, batch, outputs.reconstructed)
    target = net.scale_jet(batch.jet)  # (B, 3)
    if weights.jet:
        terms["jet"] = weighted_squared_error(outputs.jet, target, objective.jet_weights)
    if weights.consistency:
        terms["consistency"] = consistency_loss(objective, net, target, outputs.reconstructed)
    presence = outputs.reconstructed.presence
    counts = net.topology.losses(outputs.latent, batch.valid.sum(1), presence.weight)
    if weights.kl:
        beta = kl_weight(epoch, objective.kl_warmup_epochs)
        terms["kl"] = beta * latent_loss(*outputs.posterior, objective.free_bits)
    if is_training or objective.auxiliary_in_validation:
        if objective.compared == "prior":
            found = distribution_losses(objective, whole, outputs.generated, options)
        else:
            found = distribution_losses(objective, batch, outputs.reconstructed, options)
        terms |= {name: x for name, x in found._asdict().items() if getattr(weights, name)}
        if weights.numbers:
            terms["numbers"] = number_loss(net, whole, outputs.prior)
    weighted = {name: getattr(weights, name) * term for name, term in terms.items()}
    return weighted | {name: weights.count * term for name, term in counts.items()}


def particle_loss(
    objective: Objective, net: HyperVAE, batch: HypergraphBatch, decoded: Decoded
) -> Tensor:
    """Distance between true and decoded particles, in the jets' frames and one unit of energy."""
    if objective.set_distance == "hungarian":  # which takes sets whose real elements come first
        jets = Sample(decoded.vectors, decoded.presence.valid).sorted()
        decoded = Decoded(jets.vectors, Presence(jets.valid, jets.valid.to(jets.vectors)))
    tetrad = jet_tetrad(batch.vectors.sum(1))
    true, found = (
        components(x, tetrad) / net.energy_scale for x in (batch.vectors, decoded.vectors)
    )
    metric = (objective.energy_weight, 1.0, 1.0, 1.0)
    valid, weight = batch.valid.to(true.dtype), decoded.presence.weight
    if objective.set_distance == "sliced":
        return sliced_wasserstein(true, found, valid, weight, metric=metric).mean()
    cost = squared_distances(true, found, metric)
    if objective.huber is not None:
        root, edge = (cost + 1e-12).sqrt(), objective.huber
        cost = torch.where(root > edge, edge * (2 * root - edge), cost)
    if objective.set_distance == "sinkhorn":
        return sinkhorn(cost, valid, weight).mean()
    if objective.set_distance == "hungarian":
        return hungarian(cost, batch.valid, decoded.presence.valid).mean()
    importance = None
    if objective.pt_power:
        importance = tuple(
            transverse_momentum(x).detach().pow(objective.pt_power) for x in (true, found)
        )
    return chamfer(cost, valid, weight, importance).mean()


def consistency_loss(
    objective: Objective, net: HyperVAE, target: Tensor, decoded: Decoded
) -> Tensor:
    """Squared error of scaled ln pT, η and ln m of the sum of the particles, summed in GeV."""
    total = (decoded.vectors * decoded.presence.weight.unsqueeze(-1)).sum(1)
    return weighted_squared_error(
        net.scale_jet(jet_kinematics(total)), target, objective.jet_weights
    )


def number_loss(net: HyperVAE, batch: HypergraphBatch, prior: Tensor) -> Tensor:
    """Wasserstein distance of the numbers of particles, type by type, in particles."""
    distances = []
    for label in batch.label.unique():
        jets = batch.label == label
        count = batch.valid[jets].sum(1)
        true = torch.bincount(count - 1, minlength=net.max_particles).to(prior) / len(count)
        found = net.topology.distribution(prior[jets])
        distances.append((found - true).cumsum(0).abs().sum())
    return torch.stack(distances).mean()


def distribution_losses(
    objective: Objective, batch: HypergraphBatch, decoded: Decoded, options: HypergraphOptions
) -> Distances:
    """Compare distributions, type by type, and average over the types of the batch."""
    true = Sample(batch.vectors, batch.valid)
    found = Sample(decoded.vectors, decoded.presence.valid)
    distances = []
    for label in batch.label.unique():
        jets = (batch.label == label).nonzero().squeeze(1)
        distances.append(
            compare(found.take(jets), true.take(jets), options, objective.power, is_unbiased=True)
        )
    return Distances(*(torch.stack(parts).mean() for parts in zip(*distances, strict=True)))
