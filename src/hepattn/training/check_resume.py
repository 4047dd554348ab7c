"""Kill a training again and again, and see whether it ends as one that was left alone."""

import argparse
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepattn.training.experiment_command import experiment_command
from hepattn.training.run_directory import RunDirectory
from hepattn.training.weights import read_weights

COMPARED = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "random_state",
    "epoch",
    "global_step",
)
POLL = 0.01  # seconds


@dataclass(frozen=True)
class Killed:
    """A training that was killed, and one that was not.

    Args:
        steps: Optimiser step of the newest checkpoint after each kill, 0 for none.
        num_steps: Optimiser steps of the whole training.
        differences: What differs in the end, by its place in the checkpoints.
    """

    steps: tuple[int, ...]
    num_steps: int
    differences: tuple[str, ...]


def kill_and_resume(
    command: Sequence[str], root: Path, kills: int, seed: int = 0, log: Path | None = None
) -> Killed:
    """Train once without interruption, and once with SIGKILL at random times.

    Args:
        command: Experiment, ``fit`` and options, without ``--run.root`` and ``--run.name``.
        root: Folder for both runs, ``whole`` and ``killed``; neither may exist.
        kills: How often to kill.
        seed: Seed of the times.
        log: File for what the trainings print; by default nowhere.

    Raises:
        FileExistsError: If one of the runs exists.
        RuntimeError: If a training fails.
    """
    whole, killed = (RunDirectory(root, name) for name in ("whole", "killed"))
    for directory in (whole, killed):
        if directory.path.exists():
            raise FileExistsError(f"{directory.path} exists already; take another folder")
    duration = _train(command, whole, log)
    generator = random.Random(seed)
    steps: list[int] = []
    while len(steps) < kills:
        patience = generator.uniform(0, 2 * duration / (kills + 1))
        if _train(command, killed, log, patience) is not None:
            break  # it was done before
        steps.append(_step(killed))
    else:
        _train(command, killed, log)
    return Killed(tuple(steps), _step(whole), tuple(_compare(whole, killed)))


def _train(
    command: Sequence[str], directory: RunDirectory, log: Path | None, patience: float | None = None
) -> float | None:
    """Train, and say how long it took from the setup on; None if it was killed.

    Args:
        command: Experiment, ``fit`` and options.
        directory: Where the run is.
        log: File for its output.
        patience: Seconds after the setup at which it is killed.
    """
    place = ["--run.root", str(directory.path.parent), "--run.name", directory.name]
    before = _modified(directory.config_file)
    with open(log or "/dev/null", "a") as output:  # noqa: PTH123
        process = subprocess.Popen(
            experiment_command(*command, *place),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    began = None
    while process.poll() is None:
        time.sleep(POLL)
        if began is None and _modified(directory.config_file) != before:
            began = time.monotonic()  # the run has just written its config
        if patience is not None and began is not None and time.monotonic() > began + patience:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None
    if process.returncode or began is None:
        raise RuntimeError(
            f"the training ended with code {process.returncode}: {' '.join(command)}"
            + (f"; see {log}" if log else "")
        )
    return time.monotonic() - began


def _modified(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.exists() else None


def _step(directory: RunDirectory) -> int:
    newest = directory.newest_checkpoint()
    return 0 if newest is None else read_weights(newest)["global_step"]


def _compare(whole: RunDirectory, killed: RunDirectory) -> Iterator[str]:
    """Name what differs between the checkpoints of two runs."""
    names = {f.name for run in (whole, killed) for f in run.checkpoints.iterdir()}
    for name in sorted(names):
        files = [run.checkpoints / name for run in (whole, killed)]
        if not all(file.exists() for file in files):
            yield f"{name}: only in one run"
            continue
        a, b = (read_weights(file) for file in files)
        for key in COMPARED:
            yield from _differences(a.get(key), b.get(key), f"{name}: {key}")


def _differences(a: Any, b: Any, place: str) -> Iterator[str]:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype and _bits(a).equal(_bits(b))
    elif isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from _differences(a[key], b[key], f"{place}.{key}")
        return
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for number, pair in enumerate(zip(a, b, strict=True)):
            yield from _differences(*pair, f"{place}[{number}]")
        return
    else:
        same = type(a) is type(b) and (a == b or (a != a and b != b))
    if not same:
        yield place


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().flatten().view(torch.uint8) if x.numel() else x.flatten()


def main(args: Sequence[str] | None = None) -> None:
    """Run the check from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = argparse.ArgumentParser(
        prog="hepattn check-resume",
        description=(
            "Train once without interruption and once with kill -9 at random times, and compare "
            "weights, optimiser, schedule and random numbers of the checkpoints, bit for bit."
        ),
        epilog="The rest is what is trained: hepattn check-resume trackml/hit_filter --kills 20 "
        "--data.num_simulated 40",
        allow_abbrev=False,
    )
    parser.add_argument("experiment", help="Name of an experiment, or the path of a script.")
    parser.add_argument("--kills", type=int, default=20, help="How often to kill.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the times.")
    parser.add_argument("--root", type=Path, default=Path("runs/check_resume"), help="New folder.")
    options, rest = parser.parse_known_args(args)
    options.root.mkdir(parents=True, exist_ok=True)
    command = [options.experiment, "fit", *rest]
    log = options.root / "log.txt"
    try:
        found = kill_and_resume(command, options.root, options.kills, options.seed, log)
    except (FileExistsError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    print(f"killed {len(found.steps)} times, last saved at steps {list(found.steps)}")
    if found.differences:
        shown = "\n".join(f"  {line}" for line in found.differences[:20])
        print(f"{len(found.differences)} differences after {found.num_steps} steps:\n{shown}")
        raise SystemExit(1)
    print(f"after {found.num_steps} steps both runs are the same, bit for bit")
