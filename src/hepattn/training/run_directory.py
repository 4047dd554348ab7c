"""The directory of a run: who owns it, and where a resumed run continues."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

# What may change between the start of a run and its continuation: how long to train, where and
# how to report, and how a machine feeds the data. Everything else makes another run, also the
# weights to start from, the one option of ``run`` that changes what is trained.
RESUME_KEYS = ("run", "ckpt_path", "weights_only")
RESUME_TRAINER_KEYS = (
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "logger",
    "log_every_n_steps",
    "enable_progress_bar",
    "enable_model_summary",
    "profiler",
)
RESUME_LOADER_KEYS = ("num_workers", "in_memory")
OBSERVERS = (
    "DeviceStatsMonitor",
    "GradientNorm",
    "LearningRateMonitor",
    "ModelSummary",
    "NanGuard",
    "PredictionWriter",
    "ProcessMemory",
    "Requeue",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "Throughput",
)


class RunDirectoryError(RuntimeError):
    """A run directory that cannot be used for what was asked."""


@dataclass(frozen=True)
class RunConfig:
    """Where a run keeps its files.

    Args:
        root: Folder of all runs, relative to the working directory.
        name: Name of this run; by default the name of the first config that is no overlay.
        resume: Whether to continue a run of this name and config that exists already.
        save_every_n_steps: Optimiser steps from one saved state to the next within an epoch; null
            saves at the ends of epochs alone.
        weights: Checkpoint whose weights alone a new training starts from; all of them have to fit.
    """

    root: str = "runs"
    name: str | None = None
    resume: bool = True
    save_every_n_steps: int | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.save_every_n_steps is not None and self.save_every_n_steps < 1:
            raise RunDirectoryError(
                f"--run.save_every_n_steps {self.save_every_n_steps} must be at least 1"
            )


class RunDirectory:
    """The files of one run: ``config.yaml``, ``environment.json``, ``ckpts``, ``logs``, ``eval``.

    The path holds no time stamp, so that all processes of a distributed run agree on it.

    Args:
        root: Folder of all runs.
        name: Name of this run, a single path component.

    Raises:
        RunDirectoryError: If ``name`` is not a plain name.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        if name in {"", ".", ".."} or Path(name).name != name:
            raise RunDirectoryError(f"--run.name {name!r} must be a plain name without slashes")
        self.path = Path(root).absolute() / name
        self.name = name
        self.config_file = self.path / "config.yaml"
        self.environment_file = self.path / "environment.json"
        self.checkpoints = self.path / "ckpts"
        self.logs = self.path / "logs"

    def is_taken(self) -> bool:
        """Whether an earlier run left its config or a checkpoint here."""
        return self.config_file.exists() or any(self.checkpoints.glob("*.ckpt"))

    def claim(self, config: dict[str, Any], *, resume: bool) -> Path | None:
        """Check that a run may train here, and find where it continues.

        Args:
            config: Config of the run that wants to train.
            resume: Whether continuing an earlier run is welcome.

        Returns:
            Checkpoint to continue from, or None to start from the beginning.

        Raises:
            RunDirectoryError: If an earlier run with another config is here, if there is one at
                all and ``resume`` is false, or if the directory cannot be written.
        """
        self._check_writable()
        if not self.is_taken():
            return None
        remedy = "choose another name with --run.name"
        if not resume:
            raise RunDirectoryError(
                f"{self.path} holds a run already and --run.resume is false; {remedy}"
            )
        if not self.config_file.exists():
            raise RunDirectoryError(f"{self.path} holds checkpoints but no config.yaml; {remedy}")
        differences = list(config_differences(yaml.safe_load(self.config_file.read_text()), config))
        if differences:
            shown = "\n".join(f"  {line}" for line in differences[:20])
            more = f"\n  and {len(differences) - 20} more" if len(differences) > 20 else ""
            raise RunDirectoryError(
                f"{self.path} holds a run with another config (there -> asked for):\n"
                f"{shown}{more}\nTo start a new run, {remedy}."
            )
        return self.newest_checkpoint()

    def find_checkpoint(self, asked: str | Path) -> Path | None:
        """Find a checkpoint of the run, or a file.

        Args:
            asked: ``best``, ``last`` or a file.

        Returns:
            None where the run has none yet.

        Raises:
            RunDirectoryError: If there is no such file.
        """
        if asked == "best":
            return self.best_checkpoint()
        if asked == "last":
            return self.newest_checkpoint()
        if not Path(asked).is_file():
            raise RunDirectoryError(
                f"checkpoint {asked}: there is no such file; give best, last or a file"
            )
        return Path(asked)

    def newest_checkpoint(self) -> Path | None:
        """The latest state of training: the last checkpoint or one of a preempted job."""
        candidates = [*self.checkpoints.glob("last.ckpt"), *self.path.glob("hpc_ckpt_*.ckpt")]
        return max(candidates, key=lambda path: path.stat().st_mtime, default=None)

    def best_checkpoint(self) -> Path | None:
        """The best checkpoint of the run by its monitored metric, else the latest."""
        best = self.checkpoints / "best.ckpt"
        newest = self.newest_checkpoint()
        if best.exists() or newest is None:
            return best if best.exists() else None
        state = torch.load(newest, map_location="cpu", weights_only=True)
        for checkpoint in state.get("callbacks", {}).values():
            if checkpoint.get("monitor"):
                # the run may have moved since, so only the name counts
                path = self.checkpoints / Path(checkpoint["best_model_path"]).name
                if path.is_file():
                    return path
        return newest

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write to {self.path}: {error.strerror}; choose another --run.root"
            ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write a file such that a reader finds the old or the new content, never a part.

    Args:
        path: File to write.
        text: Its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def config_differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Name the keys whose difference makes two configs different runs.

    An option that is not there is as good as one that is null: new versions have new options.

    Args:
        old: Config found in the run directory.
        new: Config asked for.

    Yields:
        Lines ``key: old -> new``.
    """
    missing = "(absent)"
    before, after = dict(_flatten(_identity(old))), dict(_flatten(_identity(new)))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key, missing)} -> {after.get(key, missing)}"


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in RESUME_KEYS}
    kept["run"] = {"weights": (config.get("run") or {}).get("weights")}
    trainer = dict(kept.get("trainer") or {})
    callbacks = trainer.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    trainer["callbacks"] = [
        callback
        for callback in callbacks
        if str(callback.get("class_path", "")).rsplit(".", 1)[-1] not in OBSERVERS
    ]
    kept["trainer"] = {k: v for k, v in trainer.items() if k not in RESUME_TRAINER_KEYS}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {k: v for k, v in kept["data"].items() if k not in RESUME_LOADER_KEYS}
    return kept


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flatten(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _flatten(item, f"{key}[{index}]")
    else:
        yield key, value
