"""Say where the time of a trained network goes, layer by layer, and what limits it."""

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from hepattn.deploy.command import open_run, run_parser
from hepattn.deploy.evaluation import forwards
from hepattn.deploy.layer_profile import profile_network
from hepattn.deploy.profile_report import (
    plot_layers,
    plot_roofline,
    print_profile,
    profile_content,
    write_csv,
)
from hepattn.deploy.profile_variants import INT8, VARIANTS, make_variant
from hepattn.deploy.roofline import Roofline, measure_roofline
from hepattn.deploy.timing import CLOCKS, Clock, interleave
from hepattn.training.configs import ConfigError
from hepattn.training.figures import save_figure
from hepattn.training.load import LoadedRun
from hepattn.training.module import free_folder

BASE = "base"
NUM_CALIBRATION_BATCHES = 8


def profile_run(
    loaded: LoadedRun,
    folder: Path,
    against: Sequence[str] = (),
    num_rounds: int = 5,
    clock: Clock = "wall",
    roofline: Roofline | None = None,
) -> dict[str, Any]:
    """Profile the network of a run on a test batch, and compare it with faster forms.

    Writes ``profile.json``, ``layers.csv``, ``layers.png``, ``roofline.png`` and a Chrome trace
    for each network. A compiled network has no layers any more: only its time is compared. One in
    eight bits has no backward.

    Args:
        loaded: The run.
        folder: Where to write.
        against: Some of `VARIANTS`.
        num_rounds: Rounds that medians are over.
        clock: ``wall`` or ``cpu`` seconds of forwards.
        roofline: Limits of the machine; measured by default.

    Returns:
        What ``profile.json`` holds.
    """
    module = loaded.module
    inputs = [module.network_inputs(batch) for batch in islice(loaded.test_batches(), 1)]
    if not inputs:
        raise ValueError("there are no test events to run on; look at the data and its split")
    loaded.data.setup("fit")
    networks = {BASE: module.net}
    for variant in against:
        networks[variant] = make_variant(
            module.net,
            variant,
            lambda: map(
                module.network_inputs,
                islice(loaded.data.train_dataloader(), NUM_CALIBRATION_BATCHES),
            ),
        )
    roofline = roofline or measure_roofline(clock=clock)
    contents = {}
    for name, network in networks.items():
        if name != "compiled":
            trace = folder / f"trace_{name}.json"
            backward = name not in INT8
            profile = profile_network(network, inputs[0], backward, num_rounds, clock, trace)
            contents[name] = profile_content(profile, roofline)
    work = {name: forwards(network, inputs) for name, network in networks.items()}
    seconds = interleave(work, num_rounds, clock)
    content = {
        "shapes": [list(x.shape) for x in inputs[0]],
        "threads": torch.get_num_threads(),
        "gflop_per_second": roofline.flops_per_second / 1e9,
        "gb_per_second": roofline.bytes_per_second / 1e9,
        "forward_ms": {name: 1e3 * value for name, value in seconds.items()},
        "networks": contents,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.json").write_text(json.dumps(content, indent=2) + "\n")
    write_csv(contents, folder / "layers.csv")
    save_figure(plot_layers(contents), folder / "layers.png")
    save_figure(plot_roofline(contents, roofline), folder / "roofline.png")
    return content


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = run_parser(
        "profile",
        "Measure time, memory and operations of each layer of a run's network on a test batch, "
        "forward and backward, and what limits it.",
    )
    parser.add_argument(
        "--against", nargs="+", choices=VARIANTS, default=[], help="faster forms to compare with"
    )
    parser.add_argument("--num_rounds", type=int, default=5, help="of timing")
    parser.add_argument("--num_rows", type=int, default=25, help="layers to print")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="seconds to count")
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Profile a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    with open_run(make_parser(), args) as (loaded, options):
        folder = free_folder(loaded.folder / "deploy" / "profile")
        try:
            content = profile_run(
                loaded, folder, options.against, options.num_rounds, options.clock
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
    for name, network in content["networks"].items():
        print_profile(name, network, options.num_rows)
    times = content["forward_ms"]
    print(
        f"measured limits with {content['threads']} threads: "
        f"{content['gflop_per_second']:.1f} GFLOP/s, {content['gb_per_second']:.1f} GB/s"
    )
    for name, value in times.items():
        print(f"{name}: {value:.2f} ms forward, {times[BASE] / value:.2f} times as fast")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
