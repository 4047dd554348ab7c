"""Write jets that a trained run generates, in the file format of JetNet and in physical units.

Run as ``python generate.py RUN FILE`` or ``hepattn generate-jets RUN FILE``.
"""

# J jets, N particles

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.data.jets.jetnet import JetNetWriter
from hepattn.deploy.command import open_run, run_parser
from hepattn.experiments.hypervae.batch import jet_kinematics
from hepattn.experiments.hypervae.distributions import Sample
from hepattn.experiments.hypervae.model import Decoded, HyperVAE
from hepattn.experiments.hypervae.train import JetGenerator
from hepattn.physics.jet_shape import relative_particles
from hepattn.training.cli import run_script


def generate(net: HyperVAE, label: Tensor, batch_size: int = 1000) -> Sample:
    """Generate jets of given types.

    Args:
        net: The trained autoencoder.
        label: Numbers of the types (J).
        batch_size: Jets that are generated at once.

    Returns:
        Particles by falling pT, in GeV.
    """
    parts = [to_sorted(net.generate(part)) for part in label.split(batch_size)]
    return Sample(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def to_sorted(decoded: Decoded) -> Sample:
    """Bring decoded particles into the order of falling pT."""
    return Sample(decoded.vectors, decoded.presence.valid).sorted()


def to_jetnet(jets: Sample, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Give the columns of JetNet's two tables.

    Args:
        jets: Particles by falling pT, in GeV.
        label: Numbers of the types (J).

    Returns:
        Particles (J, N, 4) and jets (J, 5), whose pT, η and mass are those of the sum of the
        particles.
    """
    vectors = jets.vectors.double()
    columns = relative_particles(vectors, jets.valid).columns()  # (J, N, 3)
    particles = torch.cat([columns, jets.valid.unsqueeze(-1).to(columns)], -1)
    numbers = torch.stack([label, jets.valid.sum(1)]).to(columns)  # (2, J)
    kinematics = jet_kinematics(vectors.sum(1))  # (J, 3)
    table = torch.cat([numbers[:1].T, kinematics, numbers[1:].T], -1)
    return particles.numpy(), table.numpy()


def write(
    net: HyperVAE, path: Path, label: Tensor, classes: Sequence[str], batch_size: int, source: str
) -> None:
    """Generate jets and write them, batch by batch, so that memory does not grow with their number.

    Args:
        net: The trained autoencoder.
        path: The file.
        label: Numbers of the types of the jets (J).
        classes: Names of the types.
        batch_size: Jets that are generated at once.
        source: Where the network comes from, for the record.
    """
    attributes = {"generator": source}
    with JetNetWriter(path, net.max_particles, classes, attributes) as file:
        for part in track(label.split(batch_size), "generating jets"):
            file.add(*to_jetnet(generate(net, part, batch_size), part))


def types_in_turn(num_jets: int, types: Sequence[int]) -> Tensor:
    """Numbers of types that follow each other in turn (J), so that each has as many jets."""
    return torch.tensor(types).repeat(-(-num_jets // len(types)))[:num_jets]


def main(args: Sequence[str] | None = None) -> None:
    """Generate jets as the command line asks.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = run_parser("generate-jets", __doc__.partition("\n")[0])
    add_options(parser)
    with open_run(parser, args) as (loaded, options):
        net = loaded.module
        if not isinstance(net, JetGenerator):
            raise DataError(f"{loaded.folder} is no run of hypervae/train")
        if options.num_jets < 1 or options.batch_size < 1:
            raise DataError(
                f"num_jets={options.num_jets} and batch_size={options.batch_size} must be positive"
            )
        if unknown := sorted(set(options.types or ()) - set(net.classes)):
            raise DataError(
                f"types={unknown}: the run knows {', '.join(net.classes)}; choose among them"
            )
        torch.manual_seed(options.seed)
        types = [net.classes.index(name) for name in options.types or net.classes]
        label = types_in_turn(options.num_jets, types)
        source = f"{loaded.folder.name}, {loaded.checkpoint.name}, seed {options.seed}"
        write(net.net, options.file, label, net.classes, options.batch_size, source)
        print(f"{options.num_jets} jets written to {options.file}", file=sys.stderr)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("file", metavar="FILE", type=Path, help="Where to write, such as jets.h5.")
    parser.add_argument(
        "--num_jets", type=int, default=30_000, help="How many, all types together."
    )
    parser.add_argument(
        "--types", nargs="+", help="Which types; by default all that the run knows."
    )
    parser.add_argument("--batch_size", type=int, default=1000, help="Jets generated at once.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the jets.")


if __name__ == "__main__":
    run_script(__file__)
