"""Write the weights of a run as a folder to push to a model hub or to mail, and open it again."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from hepattn.deploy.command import open_run, run_parser
from hepattn.deploy.model_card import model_card
from hepattn.training.configs import ConfigError
from hepattn.training.load import LoadedRun, data_values, load_run
from hepattn.training.run_directory import RunDirectory, RunDirectoryError, write_atomically
from hepattn.training.weights import (
    EXTRA_FILE,
    TRAINING_STATE,
    WEIGHTS_FILE,
    read_json,
    read_weights,
    write_weights,
)

FILES = (WEIGHTS_FILE, EXTRA_FILE, "config.yaml", "environment.json")
METRICS = "metrics.json"
RECORDED = ("seed", "git", "python", "versions", "data")  # no command, no machine
DESCRIBED = ("epoch", "global_step", "pytorch-lightning_version")
LIGHTNING = (  # what Lightning and callbacks put into a checkpoint beside the module
    *DESCRIBED,
    "state_dict",
    "loops",
    "callbacks",
    "random_state",
    *TRAINING_STATE,
)


def from_pretrained(folder: str | Path, overrides: Sequence[str] = ()) -> LoadedRun:
    """Build the module of a folder of weights, and load all of them.

    Nothing is unpickled. The classes that ``config.yaml`` and ``environment.json`` name are
    imported and built with their options, so open folders of people whose code you would run. The
    data module is built too; its files are needed for batches alone.

    Args:
        folder: What ``hepattn weights`` wrote.
        overrides: Options that change the config, as on a command line:
            ``["--data.path", "other.root"]``.

    Returns:
        The module in evaluation mode on the CPU, and the data module.

    Raises:
        RunDirectoryError: If a file is missing or the classes are not there.
        ConfigError: If the weights do not fit the network, or an option is refused.
        DataError: If a file is damaged.
    """
    path = Path(folder)
    if missing := [name for name in FILES if not (path / name).is_file()]:
        raise RunDirectoryError(
            f"{path} is no whole folder of weights: it lacks {', '.join(missing)}; make it with "
            "hepattn weights RUN"
        )
    return load_run(path, overrides=overrides)


def save_weights(loaded: LoadedRun, path: Path) -> None:
    """Write the weights of a run into a new folder, and see that it opens as the run does.

    Args:
        loaded: The run, opened without overrides.
        path: Folder to make. It gets its name when it is complete.

    Raises:
        FileExistsError: If it exists.
        DataError: If the checkpoint holds state that is neither a tensor nor of plain types.
        ConfigError: If the folder does not open as the run does.
    """
    part = path.with_name(f"{path.name}.part")
    for folder in (path, part):
        if folder.exists():
            raise FileExistsError(f"{folder} exists; choose another --out or remove it")
    part.mkdir(parents=True)
    try:
        _write(loaded, part)
        _require_same(loaded.module, from_pretrained(part).module)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(loaded: LoadedRun, folder: Path) -> None:
    run = RunDirectory(loaded.folder.parent, loaded.folder.name)
    write_weights(folder, _checkpoint(loaded))
    shutil.copyfile(run.config_file, folder / run.config_file.name)
    environment = _environment(loaded, read_json(run.environment_file))
    text = json.dumps(environment, indent=2) + "\n"
    write_atomically(folder / run.environment_file.name, text)
    evaluation = _newest_test(loaded)
    if evaluation is not None:
        shutil.copyfile(evaluation, folder / METRICS)
    figures = {} if evaluation is None else read_json(evaluation)
    write_atomically(folder / "README.md", model_card(loaded, environment, figures))


def _checkpoint(loaded: LoadedRun) -> dict[str, Any]:
    """Weights, where the training stood, and what the module itself reads of a checkpoint."""
    state = read_weights(loaded.checkpoint)
    kept = {key: state[key] for key in DESCRIBED if key in state}
    if type(loaded.module).on_load_checkpoint is not LightningModule.on_load_checkpoint:
        kept |= {key: value for key, value in state.items() if key not in LIGHTNING}
    return {**kept, "state_dict": loaded.module.state_dict()}


def _environment(loaded: LoadedRun, record: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the classes, what the data told the module, and where the weights come from."""
    experiment = dict(record["experiment"])
    values = experiment.get("values") or data_values(loaded.data, experiment)
    # what has no plain form is asked of the data again when the folder is opened
    experiment["values"] = {
        target: value
        for target, value in values.items()
        if target.count(".") == 1 and _is_plain(value)
    }
    kept = {name: record[name] for name in RECORDED if name in record}
    source = {"run": loaded.folder.name, "file": loaded.checkpoint.name}
    if loaded.checkpoint.name == WEIGHTS_FILE:
        source = record.get("source", source)
    return {"experiment": experiment, "source": source, **kept}


def _is_plain(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def _newest_test(loaded: LoadedRun) -> Path | None:
    """Figures of the last test, unless the weights are younger than it."""
    if loaded.checkpoint.name == WEIGHTS_FILE:
        own = loaded.folder / METRICS
        return own if own.is_file() else None
    tests = loaded.folder.glob(f"eval/test*/{METRICS}")
    newest = max(tests, key=lambda path: path.stat().st_mtime, default=None)
    if newest is not None and newest.stat().st_mtime < loaded.checkpoint.stat().st_mtime:
        rank_zero_warn(
            f"{newest} is older than {loaded.checkpoint.name} and left out; test these weights "
            "first to have their figures"
        )
        return None
    return newest


def _require_same(module: LightningModule, again: LightningModule) -> None:
    ours, theirs = module.state_dict(), again.state_dict()
    for name, value in ours.items():
        if isinstance(value, Tensor) and not _is_same(value, theirs[name]):
            raise ConfigError(f"{name} is not the same when {WEIGHTS_FILE} is opened again")


def _is_same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors have the same values, which may be none (NaN)."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    return bool(((ours == theirs) | ((ours != ours) & (theirs != theirs))).all())


def main(args: Sequence[str] | None = None) -> None:
    """Write the weights of a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = run_parser(
        "weights",
        "Write the weights of a run as a folder for a model hub, without pickled files.",
        changes_config=False,
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="Folder to make, by default deploy/weights in the run.",
    )
    with open_run(parser, args) as (loaded, options):
        path = options.out or loaded.folder / "deploy" / "weights"
        save_weights(loaded, path)
    num_bytes = (path / WEIGHTS_FILE).stat().st_size
    print(f"{num_bytes / 1e6:.2f} MB of weights written to {path}; opened again and compared")
