"""A damaged folder of weights is refused with one error that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.deploy.weights import from_pretrained, main
from hepattn.training.configs import ConfigError
from hepattn.training.run_directory import RunDirectoryError


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "tagger"
    main([str(tiny_run), "--out", str(path)])
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copied")


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def change_tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        save_file(tensors, folder / "weights.safetensors")

    return apply


def cut(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def pickle_instead(folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / "weights.safetensors")


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


FILES = ("weights.safetensors", "extra_state.json", "config.yaml", "environment.json")
FAULTS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "cut": (cut, DataError, r"weights\.safetensors is no whole file"),
    "a pickle": (pickle_instead, DataError, r"weights\.safetensors is no whole file"),
    "empty": (write(FILES[0], ""), DataError, r"weights\.safetensors is no whole file"),
    "foreign tensor": (
        change_tensors(lambda tensors: tensors.update(stray=torch.zeros(1))),
        ConfigError,
        r'weights\.safetensors does not fit the network .* Unexpected key.*"stray"',
    ),
    "tensor gone": (
        change_tensors(lambda tensors: tensors.pop("net.head.bias")),
        ConfigError,
        r'weights\.safetensors does not fit the network .* Missing key.*"net\.head\.bias"',
    ),
    "other shape": (
        change_tensors(lambda tensors: tensors.update({"net.head.bias": torch.zeros(4)})),
        ConfigError,
        r"weights\.safetensors does not fit the network .* size mismatch for net\.head\.bias",
    ),
    "other features": (
        edit(FILES[1], lambda x: x["state_dict"]["net.normalise._extra_state"].pop()),
        ConfigError,
        "does not fit the network .* trained on the features",
    ),
    "extra of another kind": (
        edit(FILES[1], lambda x: x["state_dict"].update({"net.normalise._extra_state": 3})),
        ConfigError,
        "does not fit the network",
    ),
    "extra state no JSON": (write(FILES[1], "{"), DataError, r"extra_state\.json is no file of"),
    "extra state a list": (write(FILES[1], "[]"), DataError, r"extra_state\.json must hold"),
    "extra state without parts": (
        edit(FILES[1], lambda x: x.pop("state_dict")),
        DataError,
        r"extra_state\.json is damaged",
    ),
    "extra state of other weights": (
        edit(FILES[1], lambda x: x["state_dict"].update({"net.pair": 1})),
        DataError,
        r"extra_state\.json is of other weights: net\.pair",
    ),
    "another format": (
        edit(FILES[1], lambda x: x.update(format="hepattn weights 9")),
        DataError,
        r"extra_state\.json: format: found hepattn weights 9",
    ),
    "config no YAML": (write(FILES[2], "a: [1"), ConfigError, r"config\.yaml is no config"),
    "config without model": (write(FILES[2], "data: {}"), ConfigError, r"config\.yaml is no"),
    "config with a stray option": (
        lambda f: (f / FILES[2]).write_text((f / FILES[2]).read_text().replace("dim: 8", "dm: 8")),
        ConfigError,
        r"config\.yaml: .*'dm' is not accepted",
    ),
    "environment no JSON": (write(FILES[3], "{"), RunDirectoryError, r"environment\.json does not"),
    "environment a list": (write(FILES[3], "[]"), RunDirectoryError, r"environment\.json does not"),
    "other class": (
        edit(FILES[3], lambda x: x["experiment"].update(module="os.system")),
        RunDirectoryError,
        r"os\.system is no LightningModule",
    ),
    "no class": (
        edit(FILES[3], lambda x: x["experiment"].update(module="gone")),
        RunDirectoryError,
        "class gone cannot be imported",
    ),
    "value of the data": (
        edit(FILES[3], lambda x: x["experiment"]["values"].update({"model.num_classes": 4})),
        ConfigError,
        r"model\.num_classes: the weights were trained with 4, the data says 3",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_is_refused_and_named(fault: str, copied: Path) -> None:
    spoil, error, message = FAULTS[fault]
    spoil(copied)
    with pytest.raises(error, match=message):
        from_pretrained(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, copied: Path) -> None:
    (copied / name).unlink()
    with pytest.raises(RunDirectoryError, match=f"is no whole folder of weights: it lacks {name}"):
        from_pretrained(copied)
