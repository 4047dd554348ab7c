"""How much time and memory a training will take, from its first steps."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from hepattn.training.experiment_command import experiment_command

MEGA, GIGA = 1e6, 1e9


def estimate(
    experiment: str, options: Sequence[str], num_steps: int = 10, warmup: int = 3
) -> dict[str, Any]:
    """Train some steps in a process of its own, and say what the whole training takes.

    Nothing is written but simulated data that the cache lacks.

    Args:
        experiment: Name, such as ``trackml/hit_filter``, or the path of a script.
        options: Options of its ``fit``.
        num_steps: Number of steps to time.
        warmup: Number of steps before that.

    Returns:
        What `Estimate` measures, and ``hours``, of the whole training with its validations.

    Raises:
        RuntimeError: If the training fails; the message is the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "estimate.json"
        callback = [
            *("--trainer.callbacks+", "hepattn.training.callbacks.Estimate"),
            *("--trainer.callbacks.file", str(file)),
            *("--trainer.callbacks.num_steps", str(num_steps)),
            *("--trainer.callbacks.warmup", str(warmup)),
        ]
        quiet = [
            *("--run.root", folder, "--run.name", "estimate", "--trainer.logger", "false"),
            *("--trainer.enable_checkpointing", "false", "--trainer.limit_val_batches", "3"),
            *("--trainer.num_sanity_val_steps", "3", "--trainer.enable_progress_bar", "false"),
        ]
        command = experiment_command(experiment, "fit", *options, *callback, *quiet)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not file.exists():
            lines = done.stderr.strip().splitlines() or ["it printed nothing"]
            raise RuntimeError(lines[-1].removeprefix("error: "))
        found = json.loads(file.read_text())
    if not found["seconds_per_step"]:
        raise RuntimeError(
            f"the training ends after less than {warmup + 2} steps of an epoch; take more data or "
            "smaller batches"
        )
    return found | {"hours": _hours(found)}


def _hours(found: dict[str, Any]) -> float | None:
    """Time of the whole training; None where it has no end."""
    steps = found["batches_per_epoch"]
    step = median(found["seconds_per_step"])
    times = found["seconds_per_validation_batch"]
    validation = found["validation_batches"] * median(times) if times else 0.0
    epochs = found["epochs"]
    if found["max_steps"] > 0:
        limit = found["max_steps"] / steps
        epochs = limit if epochs in (None, -1) else min(epochs, limit)
    if epochs in (None, -1):
        return None
    return epochs * (steps * step + validation) / 3600


def main(args: Sequence[str] | None = None) -> None:
    """Run the estimate from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = argparse.ArgumentParser(
        prog="hepattn estimate",
        description="Time the first steps of a training, and say what the whole of it takes.",
        epilog="The rest are options of the training: hepattn estimate jets/tag --config part",
        allow_abbrev=False,
    )
    parser.add_argument("experiment", help="Name of an experiment, or the path of a script.")
    parser.add_argument("--steps", type=int, default=10, help="Number of steps to time.")
    parser.add_argument("--json", type=Path, help="File for the numbers; must not exist.")
    options, rest = parser.parse_known_args(args)
    if options.json is not None and options.json.exists():
        parser.error(f"{options.json} exists already; take another name")
    try:
        found = estimate(options.experiment, rest, options.steps)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print_estimate(found, options.experiment)


def print_estimate(found: dict[str, Any], experiment: str) -> None:
    """Print an estimate as a table.

    Args:
        found: What `estimate` returned.
        experiment: What was measured.
    """
    table = Table(title=f"{experiment} on {found['device']}")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("parameters", f"{found['parameters']:,}")
    for name in ("weights", "gradients", "optimizer"):
        table.add_row(f"{name}, MB", f"{found[f'{name}_bytes'] / MEGA:,.1f}")
    size = found["batch_size"]
    table.add_row(
        "activations of a step" + (f" of {size}" if size else "") + ", MB",
        f"{found['activations_bytes'] / MEGA:,.1f}",
    )
    table.add_row("peak with data and libraries, GB", f"{found['peak_bytes'] / GIGA:.2f}")
    times = sorted(found["seconds_per_step"])
    table.add_row("time of a step, ms", f"{1e3 * median(times):,.1f}")
    table.add_row("  from, to", f"{1e3 * times[0]:,.1f}, {1e3 * times[-1]:,.1f}")
    table.add_row("steps of an epoch", f"{found['batches_per_epoch']:,}")
    hours = found["hours"]
    shown = (
        "no end" if hours is None else f"{60 * hours:.1f} min" if hours < 2 else f"{hours:.1f} h"
    )
    table.add_row("whole training, with validation", shown)
    Console().print(table)
