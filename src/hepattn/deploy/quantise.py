"""Turn the linear layers of a trained network into eight bits and report what that does."""

import argparse
import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from hepattn.deploy.activation_ranges import (
    make_dynamic,
    make_static,
    measure_ranges,
    train_quantised,
)
from hepattn.deploy.command import open_run, run_parser
from hepattn.deploy.evaluation import Inputs, Judgement, forwards, judge
from hepattn.deploy.int8 import has_onednn
from hepattn.deploy.quantised_file import save_quantised, size_in_bytes
from hepattn.deploy.quantised_layers import called_layers, replace_layers, to_int8_weight
from hepattn.deploy.timing import CLOCKS, Clock, interleave
from hepattn.deploy.torchao_layers import TORCHAO, TORCHAO_METHODS, make_torchao
from hepattn.training.configs import ConfigError
from hepattn.training.load import LoadedRun
from hepattn.training.module import free_folder

METHODS = ("dynamic", "weight-only", "static", "qat")
BASE = "float32"


@dataclass(frozen=True)
class Options:
    """How a run is quantised.

    Args:
        methods: Which of `METHODS` and `TORCHAO_METHODS`.
        num_batches: Training batches that ranges are measured on.
        num_test_batches: Test batches that are compared on; all by default.
        range_rule: ``minmax`` or ``percentile``.
        num_steps: Steps of quantisation-aware training.
        lr: Its first learning rate.
        min_features: Layers with fewer inputs or outputs stay as they are.
        compile: Whether all networks are compiled before they are timed.
        num_rounds: Rounds of timing.
        num_timed: Test batches in each round.
        clock: ``wall`` or ``cpu`` seconds.
    """

    methods: tuple[str, ...] = METHODS
    num_batches: int = 8
    num_test_batches: int | None = None
    range_rule: str = "minmax"
    num_steps: int = 200
    lr: float = 1e-4
    min_features: int = 32
    compile: bool = False
    num_rounds: int = 10
    num_timed: int = 3
    clock: Clock = "wall"


@dataclass(frozen=True)
class Row:
    """What is known of one network.

    Args:
        judgement: How well it does on test events.
        megabytes: Size of its weights.
        milliseconds: Median time of a test batch, forward.
        file: File of its weights; None for the base and for torchao's.
    """

    judgement: Judgement
    megabytes: float
    milliseconds: float
    file: str | None = None

    def numbers(self) -> dict[str, Any]:
        """All numbers, flat."""
        plain = asdict(self)
        return plain.pop("judgement") | plain


def quantise_network(
    module: LightningModule,
    method: str,
    names: Sequence[str],
    training_batches: Callable[[], Iterable[Any]],
    options: Options = Options(),
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> nn.Module:
    """Make a quantised copy of a module's network.

    Args:
        module: Module in evaluation mode; it stays as it is.
        method: One of `METHODS` or `TORCHAO_METHODS`.
        names: Layers to quantise, see `called_layers`.
        training_batches: Called for training batches, for ``static`` and ``qat``.
        options: Of the method.
        watch: Called after each training step with its number and its loss.

    Raises:
        ValueError: If the method is unknown or cannot be calibrated.
        ImportError: If the method needs torchao and there is none.
    """
    if method not in (*METHODS, *TORCHAO_METHODS):
        raise ValueError(f"method={method!r} must be one of {(*METHODS, *TORCHAO_METHODS)}")
    module = copy.deepcopy(module)
    network = module.net
    if method in TORCHAO_METHODS:
        make_torchao(network, method, names)
    elif method == "dynamic":
        make_dynamic(network, names)
    elif method == "weight-only":
        replace_layers(network, names, lambda _, layer: to_int8_weight(layer))
    else:
        seen = islice(training_batches(), options.num_batches)
        inputs = (module.network_inputs(batch) for batch in seen)
        ranges = measure_ranges(network, names, inputs, options.range_rule)
        if method == "static":
            make_static(network, ranges)
        else:
            batches = training_batches()
            train_quantised(module, ranges, batches, options.num_steps, options.lr, watch)
    return network


def compare_quantised(
    loaded: LoadedRun, options: Options, folder: Path | None = None
) -> dict[str, Row]:
    """Quantise the network of a run in several ways and compare all with the original.

    Args:
        loaded: The run.
        options: What to do.
        folder: Where to write the weights; by default they are not written.

    Returns:
        What is known of each network, the original first.
    """
    module = loaded.module
    batches = list(islice(loaded.test_batches(), options.num_test_batches))
    loaded.data.setup("fit")
    inputs = [module.network_inputs(batch) for batch in batches[: options.num_timed]]
    names = list(called_layers(module.net, inputs[:1], options.min_features))
    networks: dict[str, nn.Module] = {BASE: module.net}
    with Progress(transient=True) as progress:
        for method in options.methods:
            total = options.num_steps if method == "qat" else None
            task = progress.add_task(method, total=total)
            networks[method] = quantise_network(
                module,
                method,
                names,
                loaded.data.train_dataloader,
                options,
                lambda step, loss, task=task: progress.update(task, completed=step),
            )
            progress.remove_task(task)
    return _compare(module, networks, batches, inputs, options, folder)


def _compare(
    module: LightningModule,
    networks: Mapping[str, nn.Module],
    batches: list[Any],
    inputs: list[Inputs],
    options: Options,
    folder: Path | None,
) -> dict[str, Row]:
    sizes = {name: size_in_bytes(network) for name, network in networks.items()}
    files: dict[str, str] = {}
    for name, network in networks.items():
        if name in METHODS and folder is not None:
            files[name] = f"{name}.safetensors"
            save_quantised(network, folder / files[name])
    if options.compile:
        for network in networks.values():
            network.compile()
    base, references = judge(module, networks[BASE], batches)
    judgements = {BASE: base}
    for name, network in networks.items():
        if name != BASE:
            judgements[name] = judge(module, network, batches, references)[0]
    work = {name: forwards(network, inputs) for name, network in networks.items()}
    seconds = interleave(work, options.num_rounds, options.clock)
    return {
        name: Row(
            judgements[name],
            sizes[name] / 1e6,
            1e3 * seconds[name] / len(inputs),
            files.get(name),
        )
        for name in networks
    }


def print_rows(rows: Mapping[str, Row], title: str) -> None:
    """Print the comparison as a table."""
    table = Table(title=title)
    table.add_column("weights")
    for name in ("loss", "accuracy", "AUC", "largest difference", "MB", "ms a batch", "speed-up"):
        table.add_column(name, justify="right")
    base = rows[BASE]
    for name, row in rows.items():
        judgement = row.judgement
        table.add_row(
            name,
            f"{judgement.loss:.4f}",
            *("–" if x is None else f"{x:.4f}" for x in (judgement.accuracy, judgement.auc)),
            "" if name == BASE else f"{judgement.difference:.2g}",
            f"{row.megabytes:.2f}",
            f"{row.milliseconds:.2f}",
            "" if name == BASE else f"{base.milliseconds / row.milliseconds:.2f}",
        )
    Console(width=110).print(table)


def write_rows(rows: Mapping[str, Row], options: Options, folder: Path) -> None:
    """Write the comparison and what it was made with as ``report.json``."""
    content = {
        "networks": {name: row.numbers() for name, row in rows.items()},
        "options": asdict(options),
        "threads": torch.get_num_threads(),
        "int8_product": "onednn" if has_onednn() else "floating",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(content, indent=2) + "\n")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = run_parser(
        "quantise",
        "Turn the linear layers of a run's network into eight bits, by several methods, and "
        "compare loss, accuracy, size and speed on test events.",
    )
    own = Options()
    choices = (*METHODS, *TORCHAO_METHODS, "all")
    method_help = "one or more; all: every one that is installed; by default all but torchao's"
    parser.add_argument("--method", nargs="+", choices=choices, default=METHODS, help=method_help)
    parser.add_argument(
        "--num_batches", type=int, default=own.num_batches, help="training batches for ranges"
    )
    parser.add_argument("--num_test_batches", type=int, help="test batches, by default all")
    parser.add_argument("--range_rule", choices=("minmax", "percentile"), default="minmax")
    parser.add_argument("--num_steps", type=int, default=own.num_steps, help="of the training")
    parser.add_argument("--lr", type=float, default=own.lr, help="of the training")
    parser.add_argument(
        "--min_features", type=int, default=own.min_features, help="smaller layers stay"
    )
    parser.add_argument("--compile", action="store_true", help="compile all networks")
    parser.add_argument("--num_rounds", type=int, default=own.num_rounds, help="of timing")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="seconds to count")
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Quantise a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    with open_run(make_parser(), args) as (loaded, given):
        values = {name: value for name, value in vars(given).items() if hasattr(Options, name)}
        options = Options(methods=_methods(given.method), **values)
        folder = free_folder(loaded.folder / "deploy" / "quantise")
        try:
            rows = compare_quantised(loaded, options, folder)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    write_rows(rows, options, folder)
    print_rows(rows, f"eight bits, {torch.get_num_threads()} threads, {given.clock} time")
    print(f"written to {folder}")


def _methods(given: Sequence[str]) -> tuple[str, ...]:
    if "all" in given:
        return (*METHODS, *(TORCHAO_METHODS if TORCHAO else ()))
    return tuple(dict.fromkeys(given))


if __name__ == "__main__":
    main()
