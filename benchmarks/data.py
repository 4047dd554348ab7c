"""Time the reading of jets against weaver's data loader, and watch memory while a file streams.

The file repeats the jets of a JetClass file, or else jets drawn at random, in its layout: a ROOT
file with all columns that the seventeen inputs need. Contenders hand out shuffled batches of them,
from one process, ready for a network:

- hepattn: our streaming loader, batches padded to their longest jet, inputs unscaled (our networks
  scale them).
- hepattn 128: the same, padded to 128 slots as weaver does it.
- weaver: the loader of weaver-core with the inputs of the published full list. It always loads in
  a thread beside the one that hands out.

Before the clock starts, the first jets of both must agree, once ours are scaled.

Memory: a fresh process streams a larger file, of jets drawn at random, in the same way, and reads
the largest memory it held after the first jets and after all.
"""

# J jets, B of a batch, N slots, F features

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import awkward as ak
import numpy as np
import torch
import uproot
import yaml
from torch import Tensor
from torch.utils.data import DataLoader

import measure
import report
from hepattn.data.jets import JetInput, StreamingJets, StreamingLoader, open_jets
from hepattn.nn.normalise import Feature, Normalise
from report import Goal

OWN, PADDED, WEAVER = "hepattn", "hepattn 128", "weaver"
SLOTS = 128
FLAGS = ["ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon"]
CLASSES = ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"]
# Name, subtract, scale, clip; and how weaver computes it.
FULL: list[tuple[str, float, float, tuple[float, float], str | None]] = [
    ("part_pt_log", 1.7, 0.7, (-5, 5), "np.log(part_pt)"),
    ("part_e_log", 2.0, 0.7, (-5, 5), "np.log(part_energy)"),
    ("part_logptrel", -4.7, 0.7, (-5, 5), "np.log(part_pt/jet_pt)"),
    ("part_logerel", -4.7, 0.7, (-5, 5), "np.log(part_energy/jet_energy)"),
    ("part_deltaR", 0.2, 4.0, (-5, 5), "np.hypot(part_deta, part_dphi)"),
    ("part_charge", 0, 1, (-5, 5), None),
    *((f"part_is{flag}", 0, 1, (-5, 5), None) for flag in FLAGS),
    ("part_d0", 0, 1, (-5, 5), "np.tanh(part_d0val)"),
    ("part_d0err", 0, 1, (0, 1), None),
    ("part_dz", 0, 1, (-5, 5), "np.tanh(part_dzval)"),
    ("part_dzerr", 0, 1, (0, 1), None),
    ("part_deta", 0, 1, (-5, 5), None),
    ("part_dphi", 0, 1, (-5, 5), None),
]
VECTOR = ["part_px", "part_py", "part_pz", "part_energy"]
TOLERANCE = 1e-4  # of scaled inputs, which float32 logarithms of ratios reach
CAP = 0.25  # of the size of the file, by which memory may grow


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.memory_of:
        print(json.dumps(measure_memory(options.memory_of, options)))
        return
    logging.getLogger("weaver").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = write_jets(Path(folder) / "jets.root", options.jets, options.source)
        config = write_config(Path(folder) / "full.yaml")
        result = measure.describe(options) | {
            "jets": options.jets,
            "batch": options.batch,
            "chunk": options.chunk,
            "buffer": options.buffer,
            "megabytes": path.stat().st_size / 1e6,
            "largest_difference": compare(path, config, options),
        }
        result["seconds"] = measure.interleave(
            {
                OWN: lambda: run_own(path, None, options),
                PADDED: lambda: run_own(path, SLOTS, options),
                WEAVER: lambda: run_weaver(path, config, options),
            },
            options,
        )
        result["jets_per_second"] = {n: options.jets / x for n, x in result["seconds"].items()}
        larger = write_jets(Path(folder) / "larger.root", options.memory_jets, None)
        flags = ["--memory-of", str(larger), "--batch", str(options.batch)]
        flags += ["--chunk", str(options.chunk), "--buffer", str(options.buffer)]
        result["memory"] = measure.in_fresh_process(__file__, flags)
    goals = list_goals(result, options)
    result["goals"] = [goal.to_json() for goal in goals]
    show(result, goals)
    path = report.write(result, options, "data")
    report.draw_bars({f"{options.jets:,} jets": result["seconds"]}, path, "reading of jets")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__, repeats=5)
    parser.add_argument("--jets", type=int, help="jets of the file that is timed")
    parser.add_argument("--memory-jets", type=int, help="jets of the file that shows memory")
    parser.add_argument("--source", type=Path, help="JetClass file to repeat; random jets if none")
    parser.add_argument("--batch", type=int, default=512, help="jets of a batch")
    parser.add_argument("--chunk", type=int, default=5000, help="jets read at once")
    parser.add_argument("--buffer", type=int, default=10_000, help="jets shuffled together")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = measure.parse(parser, arguments)
    options.jets = options.jets or (10_000 if options.quick else 50_000)
    options.memory_jets = options.memory_jets or (20_000 if options.quick else 200_000)
    return options


def write_jets(path: Path, num_jets: int, source: Path | None) -> Path:
    """Write jets in the layout of JetClass."""
    if source:
        with uproot.open(source) as file:
            jets = file["tree"].arrays()
        jets = jets[np.arange(min(num_jets, 5000)) % len(jets)]
    else:
        jets = draw_jets(min(num_jets, 5000))
    columns = {name: jets[name] for name in jets.fields}
    # Each piece is compressed by itself, so that a file of random jets is as large as a real one.
    with uproot.recreate(path, compression=uproot.LZ4(4)) as file:
        tree = file.mktree("tree", {name: values.type for name, values in columns.items()})
        for start in range(0, num_jets, len(jets)):
            tree.extend({name: x[: num_jets - start] for name, x in columns.items()})
    return path


def draw_jets(num_jets: int) -> ak.Array:
    """Draw jets at random that have the columns and about the lengths of JetClass."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(45, num_jets).clip(2, SLOTS)
    num_particles = counts.sum()
    pt = rng.exponential(15, num_particles) + 0.5
    deta, dphi = rng.normal(0, 0.2, (2, num_particles))
    order = np.lexsort((-pt, np.repeat(np.arange(num_jets), counts)))
    flat = {"px": pt * np.cos(dphi), "py": pt * np.sin(dphi), "pz": pt * np.sinh(deta)}
    flat |= {"energy": pt * np.cosh(deta), "deta": deta, "dphi": dphi}
    flat |= {name: rng.normal(0, 0.1, num_particles) for name in ("d0val", "dzval")}
    flat |= {name: rng.random(num_particles) for name in ("d0err", "dzerr")}
    flat |= {"charge": rng.integers(-1, 2, num_particles)}
    kind = rng.integers(0, len(FLAGS), num_particles)
    flat |= {f"is{flag}": kind == i for i, flag in enumerate(FLAGS)}
    columns = {
        f"part_{name}": ak.unflatten(values[order].astype(np.float32), counts)
        for name, values in flat.items()
    }
    for name in ("pt", "energy"):
        columns[f"jet_{name}"] = rng.uniform(500, 1000, num_jets).astype(np.float32)
    for name in ("eta", "phi"):
        columns[f"jet_{name}"] = rng.normal(0, 0.5, num_jets).astype(np.float32)
    label = rng.integers(0, len(CLASSES), num_jets)
    columns |= {f"label_{name}": label == i for i, name in enumerate(CLASSES)}
    return ak.zip(columns, depth_limit=1)


def write_config(path: Path) -> Path:
    """Describe the same inputs to weaver."""
    new = {name: formula for name, *_, formula in FULL if formula}
    entries = [[name, shift, scale, *map(float, clip)] for name, shift, scale, clip, _ in FULL]
    vectors = [[name, None] for name in VECTOR]
    config = {
        "treename": "tree",
        "new_variables": {"part_pt": "np.hypot(part_px, part_py)"} | new,
        "preprocess": {"method": "manual", "data_fraction": 0.5},
        "inputs": {
            "features": {"length": SLOTS, "pad_mode": "constant", "vars": entries},
            "vectors": {"length": SLOTS, "pad_mode": "constant", "vars": vectors},
        },
        "labels": {"type": "simple", "value": [f"label_{name}" for name in CLASSES]},
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def make_loader(
    path: Path, pad_to: int | None, shuffle: bool, options: argparse.Namespace
) -> StreamingLoader:
    features = JetInput(list_features(), pad_to=pad_to)
    sizes = {"chunk_size": options.chunk, "buffer_size": options.buffer}
    return StreamingLoader(
        StreamingJets(open_jets(path), features, options.batch, shuffle=shuffle, **sizes)
    )


def list_features() -> list[Feature]:
    return [Feature(name, "none", shift, scale, clip) for name, shift, scale, clip, _ in FULL]


def weaver_loader(
    path: Path, config: Path, shuffle: bool, options: argparse.Namespace
) -> DataLoader:
    from weaver.utils.dataset import SimpleIterDataset  # a peer, and slow to import

    dataset = SimpleIterDataset(
        {"jets": [str(path)]},
        str(config),
        for_training=shuffle,
        fetch_step=min(1.0, options.buffer / options.jets),
    )
    return DataLoader(dataset, batch_size=options.batch)


def run_own(path: Path, pad_to: int | None, options: argparse.Namespace) -> None:
    check_number(
        sum(len(batch.label) for batch in make_loader(path, pad_to, True, options)), options
    )


def run_weaver(path: Path, config: Path, options: argparse.Namespace) -> None:
    loader = weaver_loader(path, config, True, options)
    check_number(sum(len(inputs["features"]) for inputs, _, _ in loader), options)


def check_number(num_jets: int, options: argparse.Namespace) -> None:
    if num_jets != options.jets:
        raise RuntimeError(f"{num_jets} jets were read of {options.jets}")


def compare(path: Path, config: Path, options: argparse.Namespace) -> dict[str, float]:
    """Largest differences of the first batch from weaver's.

    Raises:
        RuntimeError: If one is too large.
    """
    own = next(iter(make_loader(path, SLOTS, False, options)))
    inputs, labels, _ = next(iter(weaver_loader(path, config, False, options)))
    pairs: dict[str, tuple[Tensor, Tensor]] = {
        "features": (
            Normalise(list_features())(own.particles, own.valid),
            inputs["features"].transpose(1, 2),
        ),
        "vectors": (own.vectors[..., [1, 2, 3, 0]], inputs["vectors"].transpose(1, 2)),
        "label": (own.label, labels["_label_"]),
    }
    apart = {name: (ours - theirs).abs().max().item() for name, (ours, theirs) in pairs.items()}
    for name, difference in apart.items():
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{name} differ by {difference:.1e} from weaver's: a wrong answer")
    return apart


def measure_memory(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """Largest memory of this process, in bytes, after the first buffers and after all."""
    torch.set_num_threads(1)
    loader = make_loader(path, None, True, options)
    batches = iter(loader)
    num_first = 4 * options.buffer // options.batch
    num_jets = sum(len(next(batches).label) for _ in range(min(num_first, len(loader))))
    start = peak_resident()
    num_jets += sum(len(batch.label) for batch in batches)
    return {
        "file_bytes": path.stat().st_size,
        "jets": num_jets,
        "first_bytes": start,
        "growth_bytes": peak_resident() - start,
    }


def peak_resident() -> int:
    # Not getrusage's: that one starts at the memory of the parent process.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def list_goals(result: dict, options: argparse.Namespace) -> list[Goal]:
    """Compare with what the project set out to reach."""
    seconds, memory = result["seconds"], result["memory"]
    growth = memory["growth_bytes"] / memory["file_bytes"]
    is_large = memory["jets"] > 10 * options.buffer
    return [
        Goal(f"× {WEAVER}, jets a second", seconds[WEAVER] / seconds[OWN], ">=", 1),
        Goal("memory that grows, of the file", growth if is_large else None, "<=", CAP),
    ]


def show(result: dict, goals: Sequence[Goal]) -> None:
    machine = f"threads: {result['threads']}, clock: {result['clock']}"
    title = f"{result['jets']:,} jets in batches of {result['batch']} from ROOT, {machine}"
    report.print_ratios(title, OWN, {"shuffled": result["seconds"]})
    console = report.make_console()
    rates = ", ".join(f"{name} {x:,.0f}" for name, x in result["jets_per_second"].items())
    console.print(f"jets a second: {rates}")
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_difference"].items())
    console.print(f"largest differences from {WEAVER}: {largest}")
    memory = {name: x / 1e6 for name, x in result["memory"].items()}
    console.print(
        f"memory: {memory['first_bytes']:.0f} MB after the first buffers, "
        f"{memory['growth_bytes']:.0f} MB more after a file of {memory['file_bytes']:.0f} MB"
    )
    report.print_goals(goals)


if __name__ == "__main__":
    main()
