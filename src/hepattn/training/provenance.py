"""What a run was made with: seed, code, package versions, data."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

import hepattn
from hepattn.training.run_directory import RunDirectory, write_atomically

PACKAGES = (
    "hepattn",
    "torch",
    "lightning",
    "jsonargparse",
    "numpy",
    "scipy",
    "pyarrow",
    "uproot",
    "lgatr",
)


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this package runs from, and whether files differ from it.

    Returns:
        None where the package does not run from a git checkout.
    """
    package = Path(hepattn.__file__).parent
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")  # an install in a checkout
        commit = _git(package, "rev-parse", "HEAD")
        changes = _git(package, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def describe_experiment(
    module_class: type, data_class: type, links: dict[str, str], data_links: dict[str, str]
) -> dict[str, Any]:
    """Say in plain types which classes a run is made of, so that it can be opened again.

    Args:
        module_class: The experiment's module.
        data_class: The experiment's data module.
        links: Source key to target key, for what the config of the data decides.
        data_links: Attribute of the data module to target key, for what only the data itself knows.
    """
    classes = {"module": module_class, "data": data_class}
    paths = {key: f"{found.__module__}.{found.__qualname__}" for key, found in classes.items()}
    return {**paths, "links": links, "data_links": data_links}


def describe_environment(
    seed: int | None, fingerprint: object, experiment: dict[str, Any]
) -> dict[str, Any]:
    """Collect what is needed to repeat a run beside its config.

    Args:
        seed: Seed of all random generators.
        fingerprint: What the data module says about its files.
        experiment: Classes of the run, see `describe_experiment`.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "experiment": experiment,
        "seed": seed,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "data": fingerprint,
        "command": sys.argv,
    }


class RunRecorder(Callback):
    """Write config, environment and split into the run directory when training starts.

    A continued run keeps the descriptions of its earlier starts under ``earlier``.

    Args:
        directory: Directory of the run.
        config: Config as YAML text.
        seed: Seed of all random generators.
        experiment: Classes of the run, see `describe_experiment`.
    """

    def __init__(
        self,
        directory: RunDirectory,
        config: str,
        seed: int | None,
        experiment: dict[str, Any],
    ) -> None:
        self.directory = directory
        self.config = config
        self.seed = seed
        self.experiment = experiment

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write both files on the first process of a real training."""
        if stage != "fit" or trainer.fast_dev_run or not trainer.is_global_zero:
            return
        fingerprint = getattr(trainer.datamodule, "fingerprint", None)
        record = describe_environment(
            self.seed, fingerprint() if callable(fingerprint) else None, self.experiment
        )
        file = self.directory.environment_file
        if file.exists():
            previous = json.loads(file.read_text())
            record["earlier"] = [*previous.pop("earlier", []), previous]
        write_atomically(file, json.dumps(record, indent=2, default=str) + "\n")
        write_atomically(self.directory.config_file, self.config)
        split = getattr(trainer.datamodule, "split", None)
        if callable(split):
            split().save(self.directory.path / "split.json")
