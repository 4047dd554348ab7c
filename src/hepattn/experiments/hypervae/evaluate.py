"""Compare generated jets with true ones, beside true jets with true ones.

Run as ``python evaluate.py GENERATED --truth TRUTH`` or ``hepattn evaluate-jets GENERATED --truth
TRUTH``. Both are files that any experiment with jets reads, such as JetNet's HDF5.
"""

# J jets, N particles

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.jets import JetDataset, JetInput, open_jets
from hepattn.experiments.hypervae.baselines import resample_particles
from hepattn.experiments.hypervae.plots import plot_jets
from hepattn.experiments.hypervae.report import (
    compare_samples,
    plain,
    print_comparison,
    types_of,
)
from hepattn.experiments.hypervae.sample import to_sample
from hepattn.metrics.jets import Estimate, JetSample
from hepattn.nn.normalise import Feature
from hepattn.physics.reference_frame import project_to_shell
from hepattn.training.cli import run_script
from hepattn.training.figures import save_figure
from hepattn.training.report import write_figures

TRUTH, INDEPENDENT = "truth", "independent particles"
Figures = dict[str, dict[str, dict[str, Estimate]]]


class LabelledJets(NamedTuple):
    """Jets of several types.

    Attributes:
        sample: The jets.
        label: Number of the type (J).
        classes: Names of the types.
    """

    sample: JetSample
    label: np.ndarray
    classes: tuple[str, ...]

    def by_type(self) -> dict[str, JetSample]:
        """The jets of each type that there is, by name."""
        rows = types_of(self.label, self.classes)
        return {name: self.sample.take(found) for name, found in rows.items()}


def read_jets(path: str | list[str], max_particles: int) -> LabelledJets:
    """Read jets, of which the particles of highest pT count, without their masses.

    Args:
        path: A file, folder, pattern or list of files.
        max_particles: Most particles of a jet.

    Raises:
        DataError: If the jets cannot be read or have no types.
    """
    source = open_jets(path)
    if not source.classes:
        raise DataError.of(
            source.name, "types", found="none", expected="jets whose types the file names"
        )
    inputs = JetInput((Feature("part_pt_log"),), max_particles, pad_to=max_particles)
    jets = JetDataset(source, inputs)
    batch = jets.__getitems__(range(len(jets)))
    keep = batch.valid.any(1) & (batch.label >= 0)
    vectors, valid = batch.vectors[keep].double(), batch.valid[keep]
    vectors = project_to_shell(vectors, vectors.new_tensor([1.0, 0.0, 0.0, 0.0]))
    label = batch.label[keep].numpy()
    return LabelledJets(to_sample(vectors, valid), label, source.classes)


def compare_all(
    generated: dict[str, LabelledJets], true: LabelledJets, seed: int, slow: bool
) -> Figures:
    """Compare sets of jets with true ones, type by type, all with as many jets.

    The true jets of a type are halved: one half is the truth, the other half is compared with it
    beside the generated ones, and the independent particles are drawn from it.

    Args:
        generated: Sets of generated jets by name.
        true: True jets.
        seed: Seed of bootstraps and of independent particles.
        slow: Whether to compute the figures that take longest.

    Raises:
        DataError: If no type is in all sets.
    """
    truth = true.by_type()
    found = {name: jets.by_type() for name, jets in generated.items()}
    shared = [kind for kind in truth if all(kind in jets for jets in found.values())]
    if not shared:
        raise DataError(
            f"the true jets are of the types {', '.join(truth)}, and the generated ones have none "
            "of these in common"
        )
    figures: Figures = {}
    for kind in shared:
        size = min(len(truth[kind]) // 2, *(len(jets[kind]) for jets in found.values()))
        if size < 2:
            raise DataError(f"too few {kind} jets to compare; give four true and two generated")
        reference, other = truth[kind].take(slice(size)), truth[kind].take(slice(size, 2 * size))
        rng = np.random.default_rng(seed)
        rows = {
            TRUTH: other,
            **{name: jets[kind].take(slice(size)) for name, jets in found.items()},
            INDEPENDENT: resample_particles(other, size, rng),
        }
        figures[kind] = {
            name: compare_samples(jets, reference, np.random.default_rng(seed), slow)
            for name, jets in rows.items()
        }
        print_comparison(f"{kind}: {size} jets against {size} true ones", figures[kind])
    return figures


def main(args: Sequence[str] | None = None) -> None:
    """Print, write and draw the comparison.

    Args:
        args: Command line arguments, by default those of the process.
    """
    options = make_parser().parse_args(args)
    try:
        true = read_jets(options.truth, options.max_particles)
        names = [Path(path).stem for path in options.generated]
        if len(set(names)) < len(names):
            raise DataError(f"the generated files {names} need different names")
        generated = {
            name: read_jets(path, options.max_particles)
            for name, path in zip(names, options.generated, strict=True)
        }
        figures = compare_all(generated, true, options.seed, not options.fast)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    record = {"max_particles": options.max_particles, "seed": options.seed}
    write_figures(options.out, record | {"types": plain(figures)})
    samples = {TRUTH: true.by_type(), **{name: x.by_type() for name, x in generated.items()}}
    save_figure(plot_jets(samples, list(figures)), options.out / "jets.png")
    print(f"figures and plots written to {options.out}")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="hepattn evaluate-jets", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("generated", nargs="+", help="files of generated jets")
    parser.add_argument("--truth", required=True, nargs="+", help="files or folders of true jets")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder of the results"
    )
    parser.add_argument("--max_particles", type=int, default=30, help="particles kept of a jet")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstraps")
    parser.add_argument("--fast", action="store_true", help="leave out coverage and matching")
    return parser


if __name__ == "__main__":
    run_script(__file__)
