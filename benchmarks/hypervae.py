"""Time the generation of jets and a training step of the hypergraph VAE, without the optimiser's.

Batches of simulated jets of up to 30 particles; the autoencoder of `hypervae_slim.yaml`, where all
jets are encoded, with these networks of particles:

- slim: L-GATr-slim.
- full: L-GATr.
- transformer: torch's `nn.TransformerEncoder` of matched width, as many features as slim has
  scalars and components of vectors.
"""

# B jets, N particles

import argparse
from collections.abc import Sequence
from functools import partial

import torch

import measure
import report
from hepattn.experiments.hypervae.batch import HypergraphBatch, make_batch
from hepattn.experiments.hypervae.decoder import Decoder
from hepattn.experiments.hypervae.encoder import Encoder
from hepattn.experiments.hypervae.hypergraph import HypergraphOptions
from hepattn.experiments.hypervae.jet_statistics import JetStatistics
from hepattn.experiments.hypervae.model import HyperVAE
from hepattn.experiments.hypervae.objective import Objective, loss_terms
from hepattn.experiments.hypervae.plain import PlainNetwork
from hepattn.nn.lorentz import Full, LorentzNetwork, Slim
from hepattn.simulate.jets import JETNET_CLASSES, JetConfig, make_jets
from report import Goal

OWN, FULL, PEER = "slim", "full", "transformer"
STEP, GENERATION = "training step", "generation"
OPTIONS = HypergraphOptions(num_edge_particles=12, num_hyperedge_particles=8)
NUM_SLOTS = 30
SLIM_SCALARS, SLIM_VECTORS = 64, 16
MATCHED = SLIM_SCALARS + 4 * SLIM_VECTORS  # features of a token
NETWORKS: dict[str, tuple[LorentzNetwork, LorentzNetwork]] = {  # of encoder and decoder
    OWN: (partial(Slim, depth=1), partial(Slim, depth=1, num_scalars=SLIM_SCALARS)),
    FULL: (partial(Full, depth=1), partial(Full, depth=1, num_scalars=SLIM_SCALARS)),
    PEER: (
        partial(PlainNetwork, depth=1, dim=MATCHED - 32, hidden=2 * (MATCHED - 32)),
        partial(PlainNetwork, depth=1, dim=MATCHED, hidden=2 * MATCHED),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    batch = draw_batch(options)
    nets = {name: make_net(name, batch).to(options.device) for name in options.networks}
    batch = torch.utils._pytree.tree_map(lambda x: x.to(options.device), batch)
    works = {
        STEP: {name: partial(run_step, net, batch) for name, net in nets.items()},
        GENERATION: {name: partial(run_generation, net, batch) for name, net in nets.items()},
    }
    seconds = {name: measure.interleave(each, options) for name, each in works.items()}
    rate = options.jets / seconds[GENERATION][OWN]
    goals = [Goal("jets generated a second, slim", rate, ">=", 3000.0)]
    if PEER in nets:
        ratio = seconds[STEP][OWN] / seconds[STEP][PEER]
        goals.append(Goal(f"{STEP}, slim / {PEER}", ratio, "<=", 2.5))
    result = measure.describe(options) | {
        "jets": options.jets,
        "particles": NUM_SLOTS,
        "parameters": {
            name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()
        },
        "jets_a_second": rate,
        "seconds": seconds,
        "goals": [goal.to_json() for goal in goals],
    }
    title = (
        f"{options.jets} jets of up to {NUM_SLOTS} particles, {result['dtype']}, "
        f"threads: {result['threads']}, clock: {result['clock']}"
    )
    report.print_ratios(title, OWN, seconds)
    report.print_goals(goals)
    report.draw_bars(seconds, report.write(result, options, "hypervae"), "jet generation")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__)
    parser.add_argument("--jets", type=int, help="jets of a batch")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=tuple(NETWORKS))
    options = measure.parse(parser, arguments)
    options.dtype = torch.float32  # of all networks, also on a GPU
    options.jets = options.jets or (16 if options.quick else 128)
    if OWN not in options.networks:
        parser.error(f"--networks must hold {OWN}, which the others are compared with")
    return options


def draw_batch(options: argparse.Namespace) -> HypergraphBatch:
    """Simulate jets and keep the particles of highest pT."""
    B = options.jets
    jets = make_jets(JetConfig(classes=JETNET_CLASSES, layout="jetnet"), B)
    vectors = torch.zeros(B, NUM_SLOTS, 4)
    first = 0
    for jet, num in enumerate(jets.num_particles.tolist()):
        rows = torch.from_numpy(jets.particles[first : first + num][:NUM_SLOTS]).float()
        vectors[jet, : len(rows)] = rows
        first += num
    label = torch.from_numpy(jets.label) - int(jets.label.min())
    return make_batch(vectors, vectors[..., 0] > 0, label, torch.ones(B), torch.arange(B), OPTIONS)


def make_net(name: str, batch: HypergraphBatch) -> HyperVAE:
    encoder, decoder = NETWORKS[name]
    torch.manual_seed(0)
    net = HyperVAE(
        len(JETNET_CLASSES),
        NUM_SLOTS,
        partial(Encoder, network=encoder),
        partial(Decoder, network=decoder),
        latent_dim=16,
    )
    net.fit(JetStatistics.of(batch, len(JETNET_CLASSES)))
    return net


def run_step(net: HyperVAE, batch: HypergraphBatch) -> None:
    net.train().zero_grad()
    terms = loss_terms(Objective(), net, batch, net(batch), OPTIONS, 1.0, is_training=True)
    sum(terms.values()).backward()


def run_generation(net: HyperVAE, batch: HypergraphBatch) -> None:
    net.eval().generate(batch.label)


if __name__ == "__main__":
    main()
