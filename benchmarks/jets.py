"""Time jet taggers against weaver's: the forward pass and a training step, without the optimiser's.

A batch of 64 jets of up to 128 particles, once real ones and once full. Real jets are those of
JetClass in the folder HEPATTN_TEST_DATA or `shared/data` beside the project; without them the
four-vectors are drawn at random for as many particles as jets of JetClass have, 45 on average.
Features are drawn at random. Both networks have the published size and the same weights, and both
leave out slots that no jet of the batch needs.

- hepattn: our network, called as `hepattn jets/tag` calls it: in evaluation each thread takes some
  of the jets, in training all threads share each operator.
- weaver: the network of weaver-core, with the same logits in evaluation mode; all threads share
  each operator.

A training step drops at random, as published, each network in its own way. Weaver's batch
normalisations count padding then, ours do not, so that training agrees on full jets alone.
`THP_MEM_ALLOC_ENABLE=1` in the environment helps both.
"""

# B jets, N particles, F features

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import uproot
from torch import Tensor, nn
from weaver.nn.model.ParticleNet import ParticleNet as WeaverParticleNet
from weaver.nn.model.ParticleTransformer import ParticleTransformer as WeaverParticleTransformer

import measure
import report
from hepattn.deploy import weaver_particle_net as particle_net_weights
from hepattn.deploy import weaver_particle_transformer as particle_transformer_weights
from hepattn.models.particle_net import ParticleNet
from hepattn.models.particle_transformer import ParticleTransformer
from hepattn.nn.event_threads import call_in_threads
from hepattn.nn.normalise import Feature
from measure import FORWARD, Seconds
from report import Goal

OWN, PEER = "hepattn", "weaver"
STEP = "training step"
PART, NET = "Particle Transformer", "ParticleNet"
REAL, FULL = "real jets", "full jets"
NUM_FEATURES, NUM_CLASSES = 17, 10
COORDINATES = ("part_deta", "part_dphi")  # the last features
MEAN_LENGTH, SPREAD = 45, 18  # of jets of JetClass, in particles
TOLERANCE = 1e-4  # how far equal logits may be apart after all layers
GOALS = {
    f"{PART}, {REAL}, {FORWARD}": 2.0,
    f"{PART}, {REAL}, {STEP}": 1.4,
    f"{PART}, {FULL}, {FORWARD}": 1.8,
    f"{PART}, {FULL}, {STEP}": 1.2,
    f"{NET}, {REAL}, {FORWARD}": 1.3,
}

Jets = tuple[Tensor, Tensor, Tensor]  # features, four-vectors, which particles are real
Classify = Callable[[Jets], Tensor]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    batches = {REAL: draw_jets(options, full=False), FULL: draw_jets(options, full=True)}
    seconds: dict[str, Seconds] = {}
    differences: dict[str, float] = {}
    for network, make in {PART: make_transformers, NET: make_particle_nets}.items():
        if network not in options.networks:
            continue
        contenders = make(options)
        for kind, jets in batches.items():  # before training steps change the moments
            differences[f"{network}, {kind}"] = difference(contenders, jets)
        for kind, jets in batches.items():
            for direction, run in WORKS.items():
                works = {name: partial(run, *each, jets) for name, each in contenders.items()}
                seconds[f"{network}, {kind}, {direction}"] = measure.interleave(works, options)
    lengths = batches[REAL][2].sum(1)
    result = measure.describe(options) | {
        "jets": options.jets,
        "particles": options.particles,
        "particles_of_real_jets": lengths.float().mean().item(),
        "largest_difference": differences,
        "seconds": seconds,
    }
    goals = [
        Goal(f"× {PEER}, {name}", row[PEER] / row[OWN], ">=", GOALS[name])
        for name, row in seconds.items()
        if name in GOALS
    ]
    result["goals"] = [goal.to_json() for goal in goals]
    title = (
        f"{options.jets} jets of up to {options.particles} particles, real ones of "
        f"{result['particles_of_real_jets']:.0f} on average, {result['dtype']}, "
        f"threads: {result['threads']}, clock: {result['clock']}"
    )
    report.print_ratios(title, OWN, seconds)
    largest = ", ".join(f"{name} {x:.1e}" for name, x in differences.items())
    report.make_console().print(f"largest differences of the logits: {largest}")
    report.print_goals(goals)
    report.draw_bars(seconds, report.write(result, options, "jets"), "jet taggers")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__)
    parser.add_argument("--jets", type=int, help="jets of a batch")
    parser.add_argument("--particles", type=int, default=128, help="most particles of a jet")
    parser.add_argument("--networks", nargs="+", choices=(PART, NET), default=(PART, NET))
    options = measure.parse(parser, arguments)
    options.jets = options.jets or (16 if options.quick else 64)
    return options


def draw_jets(options: argparse.Namespace, *, full: bool) -> Jets:
    """Draw a batch: four-vectors of real jets where there are any, features at random."""
    B, N = options.jets, options.particles
    file = data_dir() / "jetclass" / "JetClass_small500_p4.root"
    if not full and file.is_file():
        names = ("part_energy", "part_px", "part_py", "part_pz")
        vectors = torch.zeros(B, N, 4)
        with uproot.open(file) as source:
            columns = [source["tree"][name].array(library="np") for name in names]
        chosen = np.random.default_rng(0).permutation(len(columns[0]))[:B]
        for jet, particles in enumerate(zip(*(x[chosen] for x in columns), strict=True)):
            rows = torch.from_numpy(np.array(particles, dtype=np.float32)).T[:N]  # (n, 4)
            vectors[jet, : len(rows)] = rows
        valid = vectors[..., 0] > 0
    else:
        lengths = (MEAN_LENGTH + SPREAD * torch.randn(B)).round().clamp(1, N)
        valid = torch.arange(N) < (torch.full((B, 1), N) if full else lengths[:, None])
        momenta = 20 * torch.randn(B, N, 3)
        energy = (momenta.square().sum(-1, keepdim=True) + 0.02).sqrt()
        vectors = torch.cat([energy, momenta], -1).masked_fill(~valid.unsqueeze(-1), 0.0)
    x = torch.randn(B, N, NUM_FEATURES).masked_fill(~valid.unsqueeze(-1), 0.0)
    return tuple(y.to(options.device) for y in (x, vectors, valid))


def data_dir() -> Path:
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("HEPATTN_TEST_DATA", beside))


Contender = tuple[nn.Module, Classify]


def make_transformers(options: argparse.Namespace) -> dict[str, Contender]:
    """Build both Particle Transformers with the same weights."""
    theirs = WeaverParticleTransformer(
        NUM_FEATURES, num_classes=NUM_CLASSES, use_pre_activation_pair=False, trim=False
    ).to(options.device)
    ours = ParticleTransformer(features(), NUM_CLASSES).to(options.device)
    weights = particle_transformer_weights.convert(theirs.state_dict())
    ours.load_state_dict(weights, strict=False)

    def classify(jets: Jets) -> Tensor:
        x, vectors, valid = trim(jets)
        momentum_first = vectors[..., [1, 2, 3, 0]].mT.contiguous()
        return theirs(x.mT.contiguous(), momentum_first, valid.unsqueeze(1))

    return {
        OWN: (ours, partial(call, ours)),
        PEER: (theirs, classify),
    }


def make_particle_nets(options: argparse.Namespace) -> dict[str, Contender]:
    """Build both ParticleNets with the same weights."""
    widths = ((64,) * 3, (128,) * 3, (256,) * 3)
    theirs = WeaverParticleNet(
        NUM_FEATURES,
        NUM_CLASSES,
        conv_params=[(16, w) for w in widths],
        fc_params=[(256, 0.1)],
        use_fusion=False,
        trim=False,
    ).to(options.device)
    ours = ParticleNet(features(), NUM_CLASSES).to(options.device)
    ours.load_state_dict(particle_net_weights.convert(theirs.state_dict()), strict=False)

    def classify(jets: Jets) -> Tensor:
        x, _, valid = trim(jets)
        x = x.mT.contiguous()
        return theirs(x[:, -2:].contiguous(), x, valid.unsqueeze(1))

    return {
        OWN: (ours, partial(call, ours)),
        PEER: (theirs, classify),
    }


def call(network: nn.Module, jets: Jets) -> Tensor:
    return call_in_threads(network, jets, jets[2])


def features() -> list[Feature]:
    names = [f"feature{i}" for i in range(NUM_FEATURES - len(COORDINATES))]
    return [Feature(name) for name in (*names, *COORDINATES)]


def trim(jets: Jets) -> Jets:
    """Leave out slots that no jet needs; within what is timed, as our networks do it, too."""
    longest = max(int(jets[2].sum(1).max()), 1)
    return tuple(x[:, :longest] for x in jets)


def run_forward(network: nn.Module, classify: Classify, jets: Jets) -> Tensor:
    network.eval()
    with torch.no_grad():
        return classify(jets)


def run_step(network: nn.Module, classify: Classify, jets: Jets) -> None:
    network.train().zero_grad()
    label = torch.arange(len(jets[0]), device=jets[0].device) % NUM_CLASSES
    nn.functional.cross_entropy(classify(jets), label).backward()


WORKS = {FORWARD: run_forward, STEP: run_step}


def difference(contenders: dict[str, Contender], jets: Jets) -> float:
    """Largest absolute difference of the logits.

    Raises:
        RuntimeError: If it is too large.
    """
    own, peer = (run_forward(*contenders[name], jets) for name in (OWN, PEER))
    apart = (own - peer).abs().max().item()
    if not apart <= TOLERANCE:
        raise RuntimeError(f"{PEER} differs by {apart:.1e} from {OWN}: a wrong answer")
    return apart


if __name__ == "__main__":
    main()
