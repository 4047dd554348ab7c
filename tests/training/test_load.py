"""A finished run opens again as it was, or says in one line why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch.testing import assert_close

from hepattn.data.error import DataError
from hepattn.training.configs import ConfigError
from hepattn.training.load import load_run
from hepattn.training.run_directory import RunDirectoryError
from training.toy import ToyBatch, toy


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    toy("fit", "--run.root", str(root), "--model.net.dim", "6")
    return root / "toy"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "copied")


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_loaded_module_has_the_weights_of_the_checkpoint(trained: Path, checkpoint: str) -> None:
    loaded = load_run(trained, checkpoint)
    assert loaded.checkpoint == trained / "ckpts" / f"{checkpoint}.ckpt"
    assert loaded.folder == trained
    assert_close(dict(loaded.module.state_dict()), dict(state(loaded.checkpoint)), rtol=0, atol=0)
    assert not loaded.module.training
    assert loaded.module.net.layers[0].out_features == 6


def test_a_checkpoint_may_be_a_file(trained: Path, tmp_path: Path) -> None:
    file = shutil.copy(trained / "ckpts" / "last.ckpt", tmp_path / "other.ckpt")
    assert load_run(str(trained), file).checkpoint == file


def test_the_data_gives_test_batches_without_a_trainer(trained: Path) -> None:
    loaded = load_run(trained)
    batches = list(loaded.test_batches())
    assert loaded.data.trainer is None
    assert [int(event) for batch in batches for event in batch.event] == list(range(100, 108))
    assert loaded.module(batches[0]).shape == batches[0].valid.shape


def test_options_change_the_config_of_the_run(trained: Path) -> None:
    loaded = load_run(trained, overrides=["--data.batch_size", "3", "--data.num_events=4"])
    assert [len(batch.valid) for batch in loaded.test_batches()] == [3, 1]


def test_links_reach_the_module(trained: Path) -> None:
    loaded = load_run(trained)
    assert loaded.module.features == loaded.data.features
    assert [feature.name for feature in loaded.module.features] == ["x", "y"]


def test_the_network_is_not_compiled_whatever_the_config_says(copied: Path) -> None:
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["model"]["compile"] = True
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    assert load_run(copied).module.net._compiled_call_impl is None


def test_opening_a_run_writes_nothing(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    loaded = load_run(trained)
    next(iter(loaded.test_batches()))
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_moved_run_opens(trained: Path, copied: Path) -> None:
    batch: ToyBatch = next(iter(load_run(trained).test_batches()))
    assert_close(load_run(copied).module(batch), load_run(trained).module(batch))


class Code:
    def __reduce__(self) -> tuple:
        return print, ("code ran",)


def remove_record(run: Path) -> None:
    file = run / "environment.json"
    content = json.loads(file.read_text())
    del content["experiment"]
    file.write_text(json.dumps(content))


def rename_class(run: Path) -> None:
    file = run / "environment.json"
    file.write_text(file.read_text().replace("training.toy.ToyModule", "training.toy.Gone"))


def name_another_kind_of_class(run: Path) -> None:
    file = run / "environment.json"
    file.write_text(file.read_text().replace("training.toy.ToyModule", "training.toy.ToyNet"))


def narrow(run: Path) -> None:
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("dim: 6", "dim: 5"))


FAULTS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no config": (lambda run: (run / "config.yaml").unlink(), RunDirectoryError, "is no run"),
    "no record": (remove_record, RunDirectoryError, "does not name the experiment"),
    "renamed class": (rename_class, RunDirectoryError, "cannot be imported"),
    "not a module": (name_another_kind_of_class, RunDirectoryError, "is no LightningModule"),
    "no checkpoint": (
        lambda run: shutil.rmtree(run / "ckpts"),
        RunDirectoryError,
        "holds no checkpoint",
    ),
    "broken checkpoint": (
        lambda run: (run / "ckpts" / "best.ckpt").write_bytes(b"PK\x03\x04 and no more"),
        DataError,
        "no file of weights that loads safely",
    ),
    "code in the checkpoint": (
        lambda run: torch.save({"state_dict": Code()}, run / "ckpts" / "best.ckpt"),
        DataError,
        "no file of weights that loads safely",
    ),
    "weights alone": (
        lambda run: torch.save({"x": torch.zeros(1)}, run / "ckpts" / "best.ckpt"),
        RunDirectoryError,
        "is no checkpoint of a run",
    ),
    "another network": (narrow, ConfigError, "does not fit the network"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_does_not_open_says_why(
    fault: str, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    spoil, error, message = FAULTS[fault]
    spoil(copied)
    with pytest.raises(error, match=message):
        load_run(copied)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.batch_siz", "3"], "did you mean 'batch_size'?"),
        (["--data.batch_size", "many"], "data.batch_size: Expected"),
        (["--model.features", "[{name: z}]"], "set data.features instead"),
        (["--trainer.devices", "2"], "'trainer.devices' is not accepted"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_an_option_that_is_not_accepted_is_named(
    trained: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        load_run(trained, overrides=options)


def test_a_checkpoint_that_is_not_there_is_named(trained: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"other\.ckpt: there is no such file"):
        load_run(trained, "other.ckpt")
