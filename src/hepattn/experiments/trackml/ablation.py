"""Ablation of the tracking: train small variants of ``tracking.yaml`` and compare them.

Run as ``python -m hepattn.experiments.trackml.ablation --seeds 0 1``. Each variant and seed is a
run of its own below ``--out``; those that have finished are not repeated, so that a killed ablation
goes on where it was. The figures are those of the validation events after the last epoch, which
chooses nothing.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from hepattn.experiments.trackml.ablation_variants import (
    VARIANTS,
    WEIGHTS_OF,
    describe,
    make_config,
)
from hepattn.experiments.trackml.attention_pattern import attention_pattern
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.tracking import LINKS, Tracking
from hepattn.training.cli import TrainingCLI, run, run_script
from hepattn.training.run_directory import RunDirectoryError, write_atomically

CONFIG = Path(__file__).with_name("tracking.yaml")
NUM_BATCHES = 16  # of validation events, in which the attention is measured
Figures = dict[str, float | list[float] | None]

# Figure: name in the log, heading, factor, digits.
LOGGED = {
    "efficiency": ("double_majority_efficiency", "efficiency, %", 100, 1),
    "fake_rate": ("double_majority_fake_rate", "fakes, %", 100, 1),
    "strict_fake_rate": ("double_majority_strict_fake_rate", "strict fakes, %", 100, 1),
    "perfect_efficiency": ("perfect_efficiency", "perfect, %", 100, 1),
    "loss": ("loss", "val/loss", 1, 3),
}
MEASURED = {
    "seconds": ("s / step", 1, 3),
    "parameters": ("parameters, k", 1e-3, 0),
    "selected": ("hits in mask", 1, 1),
    "empty": ("empty masks, %", 100, 1),
    "distance": ("attention, Δφ", 1, 3),
}
COLUMNS = {name: column[1:] for name, column in LOGGED.items()} | MEASURED
NOTES = """\
Mean ± standard deviation over the seeds. With one number for each decoder layer: *hits in mask*,
how many of the hits that a query may see its last mask claims, whether or not the mask decides what
is seen; *empty masks*, how many masks claim none of them; *Δφ*, mean distance in φ between a query
and the hits, weighted by attention, in rad. Seconds are the median of a training step.
`flex` has no backward on the CPU: those rows are the forward with the weights of the variant that
they equal. There is no row for a class token: `read_out: cls` leaves nothing to group, so tracking
refuses it; the first of the `registers` is one.
"""


class StepTimer(Callback):
    """Time each training step; the times go with the checkpoint."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, once the batch is there."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._start)

    def state_dict(self) -> dict[str, Any]:
        """The times so far."""
        return {"seconds": list(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the times of a checkpoint."""
        self.seconds = list(state_dict["seconds"])


def make_options(changes: Mapping[str, Any], seed: int) -> list[str]:
    """Options that make a run one of a variant and a seed."""
    callbacks = ["hepattn.training.callbacks.NanGuard", f"{__name__}.{StepTimer.__name__}"]
    config = make_config(changes)
    config["trainer"] = {"callbacks": [{"class_path": path} for path in callbacks]}
    return [f"--config={json.dumps(config)}", f"--seed_everything={seed}"]


def keep_config(out: Path) -> None:
    """Copy ``tracking.yaml`` into the folder, so that no run gets another one.

    Raises:
        RunDirectoryError: If the folder has another one.
    """
    kept, text = out / CONFIG.name, CONFIG.read_text()
    if not kept.exists():
        write_atomically(kept, text)
    elif kept.read_text() != text:
        raise RunDirectoryError(f"{kept} differs from the shipped one; choose another --out")


def run_variant(name: str, seed: int, out: Path, options: Sequence[str]) -> Figures:
    """Train and measure one variant, unless its result is there.

    Args:
        name: Name of the variant.
        seed: Seed of the training.
        out: Folder of the ablation, with its config.
        options: Options of the command line, but for the run directory.

    Raises:
        RunDirectoryError: If the result was made with other options, or there is none of the
            variant whose weights are to be used.
        RuntimeError: If these weights have another loss here.
    """
    folder = out / f"{name}_seed{seed}"
    result = folder / "result.json"
    if result.exists():
        stored = json.loads(result.read_text())
        if stored["options"] != list(options):
            raise RunDirectoryError(f"{result} was made with other options; choose another --out")
        return stored["figures"]
    directory = [f"--run.root={out}", f"--run.name={folder.name}"]
    options_of_run = [f"--config={out / CONFIG.name}", *options, *directory]
    lender = out / f"{WEIGHTS_OF.get(name, name)}_seed{seed}"
    if lender == folder:
        _run("fit", options_of_run)
    elif not (lender / "result.json").exists():
        raise RunDirectoryError(f"{name} has the weights of {lender.name}, which {out} lacks")
    checkpoint = lender / "ckpts" / "last.ckpt"
    cli = _run("validate", [*options_of_run, f"--ckpt_path={checkpoint}"])
    figures = _measure(cli)
    if lender != folder:
        figures["seconds"] = None
        loss = json.loads((lender / "result.json").read_text())["figures"]["loss"]
        if not math.isclose(figures["loss"], loss, rel_tol=1e-3):
            raise RuntimeError(f"{name}: loss={figures['loss']} must be {loss} of {lender.name}")
    stored = {"options": list(options), "figures": figures}
    write_atomically(result, json.dumps(stored, indent=2) + "\n")
    return figures


def _run(stage: str, options: list[str]) -> TrainingCLI:
    return run(Tracking, TrackMLData, links=LINKS, args=[stage, *options])


def _measure(cli: TrainingCLI) -> Figures:
    logged = cli.trainer.callback_metrics  # without what is nothing out of nothing
    figures: Figures = {}
    for name, (metric, *_) in LOGGED.items():
        value = logged.get(f"val/{metric}")
        figures[name] = None if value is None else float(value)
    (timer,) = (c for c in cli.trainer.callbacks if isinstance(c, StepTimer))
    figures["seconds"] = statistics.median(timer.seconds)
    figures["parameters"] = sum(p.numel() for p in cli.model.net.parameters())
    batches = islice(cli.datamodule.val_dataloader(), NUM_BATCHES)
    seen = attention_pattern(cli.model.net.eval(), batches)
    return figures | {n: [None if math.isnan(v) else v for v in vs] for n, vs in seen.items()}


def summarise(figures: Sequence[Figures]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of each figure over the seeds, NaN where there is none."""
    rows = {name: np.array([f[name] for f in figures], dtype=float) for name in COLUMNS}
    several = len(figures) > 1
    return {
        name: (row.mean(0), row.std(0, ddof=1) if several else np.full(row.shape[1:], np.nan))
        for name, row in rows.items()
    }


def write_tables(out: Path, figures: Mapping[str, Mapping[int, Figures]], setting: str) -> Table:
    """Write the table as ``ablation.md`` and the figures of each run as ``ablation.json``.

    Args:
        out: Folder of the ablation.
        figures: Figures of each variant by its seeds.
        setting: How they were measured, in words.

    Returns:
        The table, to print, without the changes, which are long.
    """
    header = ["variant", "change", *(heading for heading, *_ in COLUMNS.values())]
    rows = []
    for name, seeds in figures.items():
        summary = summarise(list(seeds.values()))
        cells = (_cell(*summary[figure], *COLUMNS[figure][1:]) for figure in COLUMNS)
        rows.append([name, describe(VARIANTS[name]), *cells])
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    write_atomically(out / "ablation.md", f"{setting}\n\n{text}\n\n{NOTES}")
    record = {name: {"change": VARIANTS[name], "seeds": seeds} for name, seeds in figures.items()}
    text = json.dumps({"setting": setting, "variants": record}, indent=2)
    write_atomically(out / "ablation.json", text + "\n")
    table = Table(header[0], *header[2:], title=setting)
    for row in rows:
        table.add_row(row[0], *row[2:])
    return table


def _cell(mean: np.ndarray, spread: np.ndarray, factor: float, digits: int) -> str:
    values = [
        "–" if math.isnan(value) else f"{factor * value:.{digits}f}"
        for value in np.atleast_1d(mean)
    ]
    if mean.ndim or np.isnan(spread):
        return " / ".join(values)
    return f"{values[0]} ± {factor * spread:.{digits}f}"


def main(args: Sequence[str] | None = None) -> None:
    """Run the ablation from the command line.

    Args:
        args: Command line arguments, by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hepattn.experiments.trackml.ablation",
        description="Train small variants of the tracking and compare them.",
        epilog="Options that are not listed go to every run, such as --trainer.accelerator gpu.",
        allow_abbrev=False,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of training")
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME",
        help=f"all by default: {', '.join(VARIANTS)}",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each training")
    parser.add_argument("--num_simulated", type=int, default=1500, help="simulated events")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablation"), help="folder of all runs"
    )
    given, others = parser.parse_known_args(args)
    others += [f"--data.num_simulated={given.num_simulated}"]
    others += [f"--trainer.max_epochs={given.epochs}"]
    seeds, num_threads = ", ".join(map(str, given.seeds)), torch.get_num_threads()
    setting = f"Seeds {seeds}; CPU threads: {num_threads}; `{' '.join(others)}`"
    figures: dict[str, dict[int, Figures]] = {}
    todo = [(seed, name) for seed in given.seeds for name in given.variants]
    try:
        keep_config(given.out)
        for number, (seed, name) in enumerate(todo, 1):
            print(f"run {number} of {len(todo)}: {name}, seed {seed}")
            options = [*make_options(VARIANTS[name], seed), *others]
            found = run_variant(name, seed, given.out, options)
            figures.setdefault(name, {})[seed] = found
            table = write_tables(given.out, figures, setting)
    except RunDirectoryError as error:
        raise SystemExit(f"error: {error}") from error
    Console(width=180).print(table)


if __name__ == "__main__":
    run_script(__file__)
