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
from hepattn.training.weights import WEIGHTS_FILE, plain, read_weights

EXPERIMENT = ("module", "data", "links", "data_links")


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

    Nothing is trained and nothing is written; no trainer, callback or logger is made. A folder that
    ``hepattn weights`` wrote opens like a run, also where the files of its data are not there.

    Args:
        folder: Directory of the run, such as ``runs/hit_filter``, or a folder of weights.
        checkpoint: ``best``, ``last`` or a file; a folder of weights has but one, the best.
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
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{found} does not fit the network of {path}: {reason}") from error
    return LoadedRun(module.eval(), data, path, found)


def _read_experiment(directory: RunDirectory) -> dict[str, Any]:
    if not directory.config_file.is_file():
        raise RunDirectoryError(
            f"{directory.path} is no run: it holds no config.yaml; give the folder that fit made, "
            "such as runs/NAME, or that hepattn weights made"
        )
    try:
        experiment = json.loads(directory.environment_file.read_text())["experiment"]
        return {name: experiment[name] for name in EXPERIMENT} | {
            "values": experiment.get("values", {})
        }
    except (OSError, LookupError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise RunDirectoryError(
            f"{directory.environment_file} does not name the experiment of the run, as it does in "
            "runs of this version; continue the run with fit, or repeat hepattn weights, which "
            "writes it again"
        ) from error


def _find_checkpoint(directory: RunDirectory, checkpoint: str | Path) -> Path:
    weights = directory.path / WEIGHTS_FILE
    if weights.is_file() and checkpoint in ("best", "last"):
        if checkpoint == "last":
            raise RunDirectoryError(f"{weights} is the best checkpoint alone; take that one")
        return weights
    found = directory.find_checkpoint(checkpoint)
    if found is None:
        raise RunDirectoryError(f"{directory.path} holds no checkpoint; train it first with fit")
    return found


def _build(
    directory: RunDirectory, experiment: dict[str, Any], overrides: Sequence[str]
) -> tuple[LightningModule, LightningDataModule]:
    values, links = experiment["values"], experiment["links"]
    data_links = {f"data.{name}": target for name, target in experiment["data_links"].items()}
    parser = Parser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--run_config", action="config")
    parser.add_lightning_class_args(_import(experiment["module"], LightningModule), "model")
    parser.add_lightning_class_args(_import(experiment["data"], LightningDataModule), "data")
    for source, target in links.items():
        parser.link_arguments(source, target, apply_on="parse")
    for source, target in data_links.items():
        if target not in values:
            parser.link_arguments(source, target, apply_on="instantiate")
    refuse_linked_values(overrides, [], links | data_links)
    kept = _read_config(directory.config_file)
    for target, value in values.items():
        kept["model"][target.removeprefix("model.")] = value
    try:
        text = yaml.safe_dump(kept, sort_keys=False)  # the order of classes is that of labels
        config = parser.parse_args(["--run_config", text, *overrides])
    except ArgumentError as error:
        place = "" if overrides else f"{directory.config_file}: "
        raise ConfigError(place + parser.summarise(str(error))) from error
    built = instantiate(parser, config)
    _compare_values(built.data, experiment)
    return built.model, built.data


def _read_config(file: Path) -> dict[str, Any]:
    """Read what a run's config says of module and data; nothing is compiled."""
    try:
        saved = yaml.safe_load(file.read_text())
        kept = {key: dict(saved[key]) for key in ("model", "data")}
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file} is no config of a run with model and data: {reason}") from error
    if "compile" in kept["model"]:
        kept["model"]["compile"] = False
    return kept


def data_values(data: LightningDataModule, experiment: dict[str, Any]) -> dict[str, Any]:
    """Say in plain types what the data itself tells the module, target key to value.

    Args:
        data: The data module.
        experiment: Classes and links of the run, see `describe_experiment`.
    """
    links = experiment["data_links"].items()
    return {target: plain(getattr(data, name)) for name, target in links}


def _compare_values(data: LightningDataModule, experiment: dict[str, Any]) -> None:
    """Refuse data that differs from what trained the weights, as far as it can be opened."""
    if not experiment["values"]:
        return
    try:
        ours = data_values(data, experiment)
    except (DataError, OSError):  # the module does without
        return
    for target, value in experiment["values"].items():
        if ours.get(target) != value:
            raise ConfigError(
                f"{target}: the weights were trained with {value}, the data says "
                f"{ours.get(target)}; give data of the same kind"
            )


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
    except (ImportError, AttributeError, ValueError) as error:
        raise RunDirectoryError(
            f"the run's class {class_path} cannot be imported: {error}; put the folder of its "
            "script on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise RunDirectoryError(f"the run's class {class_path} is no {base.__name__}")
    return found
