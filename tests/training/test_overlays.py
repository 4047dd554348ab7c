import gc
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hepattn.training.configs import ConfigError, overlays, resolve_config
from hepattn.training.loggers import Comet
from training.toy import toy

pytestmark = pytest.mark.usefixtures("in_tmp_path")
TRAINABLE = ("debug", "cpu", "slurm", "ema", "bf16", "profile", "comet", "compile")


@pytest.fixture(autouse=True)
def _no_comet_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "no.config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    gc.collect()  # what Comet leaves open is reported here, not in another test


def test_the_overlays_are_the_documented_ones() -> None:
    assert sorted(overlays()) == sorted([*TRAINABLE, "gpu", "ddp", "fsdp"])


@pytest.mark.parametrize("name", sorted(overlays()))
def test_an_overlay_starts_with_one_line_that_says_what_it_is(name: str) -> None:
    first, second = overlays()[name].read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert f"--config {name}" in first
    assert not second.startswith("#")


@pytest.mark.parametrize("name", sorted(overlays()))
def test_an_overlay_parses_on_an_experiment(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        toy("fit", "--config", name, "--print_config")
    assert stop.value.code == 0
    assert "class_path: training.toy.ToyNet" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in TRAINABLE if name != "compile"])
def test_an_overlay_trains(name: str) -> None:
    cli = toy("fit", "--config", name, "--trainer.limit_train_batches", "2",
              "--trainer.max_epochs", "1")  # fmt: skip
    assert cli.trainer.global_step == 2
    assert Path("runs/toy/ckpts/last.ckpt").exists()
    strays = [path.name for path in Path().iterdir() if path.name not in {"runs", "home"}]
    assert strays == []


def test_the_compile_overlay_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled(self, backend="aot_eager")
    )
    cli = toy("fit", "--config", "compile", "--trainer.max_epochs", "1")
    assert cli.trainer.global_step == 4
    state = torch.load("runs/toy/ckpts/last.ckpt", weights_only=True)["state_dict"]
    assert "net.layers.0.weight" in state


def test_comet_without_a_key_leaves_an_archive_and_says_how_to_send_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy("fit", "--config", "comet")
    archives = list(Path("runs/toy/logs/comet").glob("*.zip"))
    assert len(archives) == 1
    assert f"comet upload {archives[0].absolute()}" in capsys.readouterr().out
    with zipfile.ZipFile(archives[0]) as archive:
        lines = archive.read("messages.json").decode().splitlines()
    messages = [json.loads(line) for line in lines]
    names = {m["payload"].get("metric", {}).get("metricName") for m in messages}
    assert {"train/loss", "val/loss"} <= names


def test_comet_stays_silent_in_a_trial_run() -> None:
    toy("fit", "--config", "comet", "--trainer.fast_dev_run", "1")
    assert not Path("runs").exists()


def test_comet_is_online_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Comet().is_online
    monkeypatch.setenv("COMET_API_KEY", "k" * 25)
    assert Comet().is_online


def test_comet_continues_its_experiment_on_resume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = []

    class Experiment:
        project_name = "hepattn"

        def get_key(self) -> str:
            return "a" * 32

        def log_other(self, name: str, value: str) -> None:
            pass

    def start(**options: object) -> Experiment:
        started.append(options)
        return Experiment()

    monkeypatch.setenv("COMET_API_KEY", "k" * 25)
    monkeypatch.setattr("comet_ml.start", start)
    for _ in range(2):
        logger = Comet()
        logger.directory = tmp_path / "run" / "logs" / "comet"
        assert logger.experiment.get_key() == "a" * 32
    assert [options["experiment_key"] for options in started] == [None, "a" * 32]
    assert all(options["online"] for options in started)


def test_an_unknown_config_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"debug.*did you mean 'comet'"):
        resolve_config("commet")
