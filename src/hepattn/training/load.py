"""Open a finished run again: its module with the trained weights, and its data."""

import importlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule, LightningModule

from hepattn.data.error import DataError
from hepattn.training.configs import ConfigError
from hepattn.training.parser import Parser, refuse_linked_values
from hepattn.training.run_directory import RunDirectory, RunDirectoryError
from hepattn.training.weights import read_weights


@dataclass(frozen=True)
class LoadedRun:
    """A run that was opened again.

    Args:
        module: Its module with the trained weights, on the CPU, in evaluation mode, not compiled.
        data: Its data module.
        folder: Where the run is.
        checkpoint: File that the weights come from.
    """

    module: LightningModule
    data: LightningDataModule
    folder: Path
    checkpoint: Path

    def test_batches(self) -> Iterable[Any]:
        """Prepare the data and return the batches of the test split, on the CPU."""
        self.data.prepare_data()
        self.data.setup("test")
        return self.data.test_dataloader()


def load_run(
    folder: str | Path, checkpoint: str | Path = "best", overrides: Sequence[str] = ()
) -> LoadedRun:
    """Build the module and the data of a run as its config says, and load the trained weights.

    Nothing is trained and nothing is written; no trainer, callback or logger is made.

    Args:
        folder: Directory of the run, such as ``runs/hit_filter``.
        checkpoint: ``best``, ``last`` or a file.
        overrides: Options that change the run's config, as on its command line:
            ``["--data.path", "other.root"]``.

    Raises:
        RunDirectoryError: If there is no run, it lacks the checkpoint, or an earlier version of
            the package wrote it.
        ConfigError: If an option is not accepted or a value is refused.
        DataError: If the checkpoint cannot be read, or the data module refuses its options.
    """
    path = Path(folder).resolve()
    directory = RunDirectory(path.parent, path.name)
    experiment = _read_experiment(directory)
    found = _find_checkpoint(directory, checkpoint)
    module, data = _build(directory, experiment, overrides)
    state = read_weights(found)
    if not isinstance(state, dict) or "state_dict" not in state:
        raise RunDirectoryError(f"{found} is no checkpoint of a run; give best, last or a file")
    try:
        module.on_load_checkpoint(state)
        module.load_state_dict(state["state_dict"])
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{found} does not fit the network of {path}: {error}") from error
    return LoadedRun(module.eval(), data, path, found)


def _read_experiment(directory: RunDirectory) -> dict[str, Any]:
    if not directory.config_file.is_file():
        raise RunDirectoryError(
            f"{directory.path} is no run: it holds no config.yaml; give the folder that fit made, "
            "such as runs/NAME"
        )
    try:
        experiment = json.loads(directory.environment_file.read_text())["experiment"]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise RunDirectoryError(
            f"{directory.environment_file} does not name the experiment of the run, as it does in "
            "runs of this version; continue the run with fit, which writes it again"
        ) from error
    return experiment


def _find_checkpoint(directory: RunDirectory, checkpoint: str | Path) -> Path:
    if checkpoint == "best":
        found = directory.best_checkpoint()
    elif checkpoint == "last":
        found = directory.newest_checkpoint()
    else:
        found = Path(checkpoint)
        if not found.is_file():
            raise RunDirectoryError(
                f"checkpoint {checkpoint}: there is no such file; give best, last or a file"
            )
    if found is None:
        raise RunDirectoryError(f"{directory.path} holds no checkpoint; train it first with fit")
    return found


def _build(
    directory: RunDirectory, experiment: dict[str, Any], overrides: Sequence[str]
) -> tuple[LightningModule, LightningDataModule]:
    links = experiment["links"]
    data_links = {f"data.{name}": target for name, target in experiment["data_links"].items()}
    parser = Parser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--run_config", action="config")
    parser.add_lightning_class_args(_import(experiment["module"], LightningModule), "model")
    parser.add_lightning_class_args(_import(experiment["data"], LightningDataModule), "data")
    for source, target in links.items():
        parser.link_arguments(source, target, apply_on="parse")
    for source, target in data_links.items():
        parser.link_arguments(source, target, apply_on="instantiate")
    refuse_linked_values(overrides, [], links | data_links)
    saved = yaml.safe_load(directory.config_file.read_text())
    kept = {key: saved[key] for key in ("model", "data")}
    if "compile" in kept["model"]:
        kept["model"]["compile"] = False
    try:
        text = yaml.safe_dump(kept, sort_keys=False)  # the order of classes is that of labels
        config = parser.parse_args(["--run_config", text, *overrides])
    except ArgumentError as error:
        raise ConfigError(parser.summarise(str(error))) from error
    built = instantiate(parser, config)
    return built.model, built.data


def instantiate(parser: Parser, config: Namespace) -> Namespace:
    """Build the classes of a parsed config; a value that a constructor refuses is a config error.

    Args:
        parser: What parsed it.
        config: The config.

    Raises:
        ConfigError: If a constructor refuses a value.
        DataError: If the data refuses its options.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
            return parser.instantiate_classes(config)
    except (ConfigError, DataError):
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _import(class_path: str, base: type) -> type:
    module_name, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise RunDirectoryError(
            f"the run's class {class_path} cannot be imported: {error}; put the folder of its "
            "script on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise RunDirectoryError(f"the run's class {class_path} is no {base.__name__}")
    return found
