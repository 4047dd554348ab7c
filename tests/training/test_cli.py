from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor

from hepattn.data.error import DataError
from hepattn.nn.normalise import Feature
from hepattn.training.callbacks import EMA, GradientNorm, NanGuard
from hepattn.training.cli import run
from training.toy import CONFIG, LINKS, ToyData, ToyModule, toy

pytestmark = pytest.mark.usefixtures("in_tmp_path")
DRY = ("--trainer.fast_dev_run", "1")


def write(name: str, content: Any) -> Path:
    path = Path(name)
    path.write_text(yaml.safe_dump(content))
    return path


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_features_reach_the_model_from_the_data() -> None:
    cli = toy("fit", *DRY)
    assert cli.model.features == cli.datamodule.features
    assert cli.model.features == (
        Feature("x", scale=2.0),
        Feature("y", clip=(-1.0, 1.0)),
    )
    assert cli.model.net.layers[0].in_features == 2


def test_features_given_on_the_command_line_reach_the_model() -> None:
    cli = toy("fit", *DRY, "--data.features", "[{name: a}, {name: b}, {name: c, transform: log}]")
    assert [feature.name for feature in cli.model.features] == ["a", "b", "c"]
    assert cli.model.net.layers[0].in_features == 3


@pytest.mark.parametrize(
    "options",
    [
        ("--model.features", "[{name: z}]"),
        ("--model.features=[{name: z}]",),
        ("--model", "{features: [{name: z}]}"),
        ("--config", "extra.yaml"),
        ("--model", "model.yaml"),
    ],
)
def test_a_value_for_a_linked_key_is_refused(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write("extra.yaml", {"model": {"features": [{"name": "z"}]}})
    write("model.yaml", {"features": [{"name": "z"}]})
    with pytest.raises(SystemExit):
        toy("fit", *DRY, *options)
    assert "model.features is given in" in last_line(capsys)


@pytest.mark.parametrize("name", ["model.net.init_args.dim", "model.net.dim"])
@pytest.mark.parametrize("place", ["file", "command line"])
def test_a_value_for_a_nested_linked_key_is_refused(
    name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree: Any = 7
    for part in reversed(name.split(".")):
        tree = {part: tree}
    write("extra.yaml", tree)
    options = ["--config", "extra.yaml"] if place == "file" else [f"--{name}", "7"]
    links = {**LINKS, "data.batch_size": "model.net.init_args.dim"}
    with pytest.raises(SystemExit) as stop:
        run(ToyModule, ToyData, links=links, args=["fit", "--config", str(CONFIG), *options])
    assert stop.value.code == 1
    assert "set data.batch_size instead" in last_line(capsys)


def test_printed_config_trains_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        toy("fit", "--model.net.dim", "6", "--print_config")
    Path("printed.yaml").write_text(capsys.readouterr().out)
    cli = toy("fit", *DRY, config=Path("printed.yaml"))
    assert cli.model.net.layers[0].out_features == 6
    assert len(cli.model.features) == 2


def test_help_lists_the_documented_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        toy("fit", "--help", config=None)
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--run.name" in text
    assert "Number of events in a batch" in text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--model.net.init_args.dm", "3"), "model.net: option 'dm' is not accepted; did you mean"),
        (("--data.batch_siz", "3"), "'data.batch_siz' is not accepted; did you mean 'batch_size'?"),
        (("--trainer.max_epoch", "3"), "did you mean 'max_epochs'?"),
        (("--model.optimizer.init_args.lrr", "3"), "did you mean 'lr'?"),
        (("--config", "typo.yaml"), "'trainer.max_epoch' is not accepted; did you mean"),
        (("--config", "feature.yaml"), "option 'scal' is not accepted; did you mean 'scale'?"),
        (("--data.batch_size", "x"), "data.batch_size: Expected a <class 'int'>. Got value: x"),
        (("--config", "comett"), "did you mean 'comet'?"),
    ],
)
def test_a_typo_is_named_in_the_last_line(
    options: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("typo.yaml", {"trainer": {"max_epoch": 3}})
    write("feature.yaml", {"data": {"features": [{"name": "x", "scal": 3}]}})
    with pytest.raises(SystemExit) as stop:
        toy("fit", *options)
    error = capsys.readouterr().err
    assert stop.value.code in {1, 2}
    assert line in error.strip().splitlines()[-1]
    assert "usage:" not in error
    assert not Path("runs").exists()


def test_several_configs_merge_left_to_right() -> None:
    write("one.yaml", {"data": {"batch_size": 4}, "trainer": {"max_epochs": 7}})
    write("two.yaml", {"trainer": {"max_epochs": 9}})
    cli = toy("fit", *DRY, "--config", "one", "--config", "two.yaml")
    assert cli.datamodule.batch_size == 4
    assert cli._get(cli.config, "trainer").max_epochs == 9


def test_overlays_append_callbacks_and_replace_none() -> None:
    monitor = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
    write("own.yaml", {"trainer": {"callbacks": [monitor]}})
    cli = toy(
        "fit", *DRY, "--config", "own.yaml", "--config", "ema", "--config", "debug",
        "--trainer.callbacks+", "hepattn.training.callbacks.Throughput",
    )  # fmt: skip
    kinds = [type(callback) for callback in cli.trainer.callbacks]
    for kind in (LearningRateMonitor, EMA, NanGuard, GradientNorm):
        assert kinds.count(kind) == 1


def test_a_config_beside_the_working_directory_wins_over_the_scripts_folder() -> None:
    write("toy.yaml", {**yaml.safe_load(CONFIG.read_text()), "seed_everything": 5})
    cli = toy("fit", *DRY, config=Path("toy"))
    assert cli._get(cli.config, "seed_everything") == 5


def test_a_config_of_the_scripts_folder_is_found_from_anywhere() -> None:
    cli = toy("fit", *DRY, config=Path("toy.yaml"))
    assert cli.datamodule.batch_size == 2


def test_the_seed_is_zero_by_default() -> None:
    first, second = toy("fit", *DRY), toy("fit", *DRY)
    assert first._get(first.config, "seed_everything") == 0
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert a.equal(b)


def test_a_data_error_is_one_message_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: ToyData) -> None:
        raise DataError("event7.csv: x: found nan, expected a number")

    monkeypatch.setattr(ToyData, "train_dataloader", broken)
    with pytest.raises(SystemExit) as stop:
        toy("fit", *DRY)
    assert stop.value.code == 1
    assert last_line(capsys) == "error: event7.csv: x: found nan, expected a number"


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ToyData) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(ToyData, "train_dataloader", broken)
    with pytest.raises(KeyError, match="a bug"):
        toy("fit", *DRY)


def test_the_root_directory_belongs_to_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        toy("fit", "--trainer.default_root_dir", "elsewhere")
    assert "run.root" in last_line(capsys)


def test_a_schedule_of_torch_is_set_up_in_yaml_and_goes_on_in_a_resumed_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = """
model:
  schedule:
    class_path: hepattn.training.schedules.Other
    init_args:
      schedule: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {STEP: 2, gamma: 0.5}}
      interval: epoch
"""
    Path("schedule.yaml").write_text(text.replace("STEP", "step_size"))
    for max_epochs, factor in ((1, 1.0), (2, 0.5), (4, 0.25)):
        options = ["--config", "schedule.yaml", "--trainer.max_epochs", str(max_epochs)]
        optimizer = toy("fit", *options).trainer.optimizers[0]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor)
    Path("schedule.yaml").write_text(text.replace("STEP", "stepsize"))
    with pytest.raises(SystemExit):
        toy("fit", "--config", "schedule.yaml", "--run.name", "misspelt")
    assert "stepsize" in last_line(capsys)
