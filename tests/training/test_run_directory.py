import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from torch.testing import assert_close

from hepattn.training.run_directory import RunDirectory, RunDirectoryError, config_differences
from training.toy import CONFIG, Interrupt, toy

pytestmark = pytest.mark.usefixtures("in_tmp_path")
RUN = Path("runs/toy")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def assert_same_weights(a: LightningModule, b: LightningModule) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert_close(x, y, rtol=0, atol=0, msg=name)


def interrupted(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Train until something fails in the second epoch."""
    with monkeypatch.context() as patch:
        patch.setattr("training.toy.ToyModule.training_step", Interrupt(5).training_step)
        with pytest.raises(InterruptedError):
            toy("fit", *options)


def test_a_run_keeps_everything_in_its_directory() -> None:
    toy("fit")
    files = {str(path.relative_to(RUN)) for path in RUN.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("logs/events")}
    assert files - events == {
        "config.yaml",
        "environment.json",
        "ckpts/best.ckpt",
        "ckpts/last.ckpt",
        "logs/hparams.yaml",
    }
    assert len(events) == 1
    assert list(Path().iterdir()) == [Path("runs")]


def test_what_a_run_switched_off_stays_off_in_its_evaluations() -> None:
    Path("constant.yaml").write_text("model: {schedule: null}")
    toy("fit", "--config", "constant.yaml", "--run.name", "constant")
    cli = toy("validate", "--run.name", "constant")
    assert cli.model.make_schedule is None


def test_the_name_and_the_root_can_be_chosen() -> None:
    toy("fit", "--run.name", "other", "--run.root", "elsewhere")
    assert Path("elsewhere/other/ckpts/last.ckpt").exists()
    assert not Path("runs").exists()


def test_the_first_config_that_is_no_overlay_names_the_run() -> None:
    Path("mine.yaml").write_text(CONFIG.read_text())
    cli = toy("fit", "--config", "cpu", "--config", "mine.yaml", config=Path("debug"))
    assert cli.run_directory.name == "mine"


@pytest.mark.parametrize("overlay", [(), ("--config", "ema")])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    overlay: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = toy("fit", *overlay, "--run.name", "whole")
    interrupted(monkeypatch, *overlay)
    resumed = toy("fit", *overlay)
    assert resumed.trainer.global_step == whole.trainer.global_step == 8
    assert_same_weights(resumed.model, whole.model)
    a = torch.load("runs/whole/ckpts/last.ckpt", weights_only=True)
    b = torch.load(RUN / "ckpts/last.ckpt", weights_only=True)
    assert a["lr_schedulers"] == b["lr_schedulers"]


def test_a_longer_training_continues_the_run() -> None:
    toy("fit", "--trainer.max_epochs", "1")
    cli = toy("fit", "--trainer.max_epochs", "3")
    assert cli.trainer.global_step == 12
    assert yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]["max_epochs"] == 3


def test_logs_keep_their_history_on_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch)
    before = {path: path.read_bytes() for path in (RUN / "logs").glob("events*")}
    time.sleep(1.1)  # TensorBoard names its files by the second
    toy("fit")
    after = set((RUN / "logs").glob("events*"))
    assert before.keys() < after
    assert all(path.read_bytes() == content for path, content in before.items())


def test_another_config_is_refused_by_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    toy("fit")
    before = (RUN / "config.yaml").read_text()
    with pytest.raises(SystemExit) as stop:
        toy("fit", "--model.net.dim", "8", "--model.optimizer.lr", "0.5")
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert "model.net.init_args.dim: 4 -> 8" in error
    assert "model.optimizer.init_args.lr: 0.01 -> 0.5" in error
    assert "--run.name" in error.strip().splitlines()[-1]
    assert (RUN / "config.yaml").read_text() == before


def test_the_learning_rate_of_the_command_line_holds_in_a_new_run() -> None:
    toy("fit")
    cli = toy("fit", "--run.name", "new", "--model.optimizer.lr", "0.5")
    assert cli.trainer.optimizers[0].defaults["lr"] == 0.5
    assert cli.trainer.lr_scheduler_configs[0].scheduler.peak == 0.5


def test_without_resume_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    toy("fit")
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*")}
    with pytest.raises(SystemExit):
        toy("fit", "--run.resume", "false")
    assert "--run.resume is false" in last_line(capsys)
    assert {path: path.stat().st_mtime_ns for path in RUN.rglob("*")} == before


def test_a_run_killed_before_its_first_checkpoint_starts_again() -> None:
    toy("fit")
    for checkpoint in (RUN / "ckpts").iterdir():
        checkpoint.unlink()
    assert toy("fit").trainer.global_step == 8


def test_a_trial_run_writes_nothing() -> None:
    toy("fit", "--trainer.fast_dev_run", "1")
    with pytest.warns(UserWarning, match="untrained weights"):
        toy("predict", "--trainer.fast_dev_run", "1")
    assert list(Path().iterdir()) == []


def test_a_trial_run_leaves_a_taken_directory_alone() -> None:
    toy("fit")
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*")}
    toy("fit", "--trainer.fast_dev_run", "1", "--model.net.dim", "8")
    assert {path: path.stat().st_mtime_ns for path in RUN.rglob("*")} == before


def test_without_a_logger_no_file_leaves_the_run_directory() -> None:
    toy("fit", "--trainer.logger", "false")
    assert (RUN / "config.yaml").exists()
    assert list(Path().iterdir()) == [Path("runs")]


def test_a_metric_with_a_slash_makes_no_folder() -> None:
    toy("fit")
    assert [path.name for path in (RUN / "ckpts").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_without_weights_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        toy(command)
    assert stop.value.code == 1
    assert "no checkpoint" in last_line(capsys)


def test_an_evaluation_takes_the_best_weights_of_its_run() -> None:
    toy("fit")
    assert Path(toy("validate").trainer.ckpt_path) == (RUN / "ckpts/best.ckpt").absolute()


def test_an_evaluation_takes_the_last_weights_if_there_are_no_best() -> None:
    toy("fit")
    (RUN / "ckpts/best.ckpt").unlink()
    assert Path(toy("test").trainer.ckpt_path).name == "last.ckpt"


def test_an_evaluation_takes_the_weights_it_is_told() -> None:
    toy("fit")
    last = str(RUN / "ckpts/last.ckpt")
    assert toy("validate", "--ckpt_path", last, "--run.name", "x").trainer.ckpt_path == last


def test_a_missing_checkpoint_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        toy("validate", "--ckpt_path", "nowhere.ckpt")
    assert "nowhere.ckpt" in last_line(capsys)


def test_the_module_says_which_metric_picks_the_best_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.toy.ToyModule.monitor", ("val/loss", "max"))
    toy("fit", "--model.optimizer.lr", "0.1")  # the loss falls, so the first epoch is "best"
    best, last = (torch.load(RUN / f"ckpts/{n}.ckpt", weights_only=True) for n in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (0, 1)
    state = next(v for k, v in last["callbacks"].items() if k.startswith("BestCheckpoint"))
    validated = toy("validate").trainer.callback_metrics["val/loss"]
    assert_close(validated, state["best_model_score"])


def test_a_checkpoint_callback_of_the_user_saves_into_the_run() -> None:
    checkpoint = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"monitor": "val/bce", "filename": "{epoch}", "save_top_k": 1},
    }
    Path("top.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [checkpoint]}}))
    toy("fit", "--config", "top.yaml")
    names = sorted(path.name for path in (RUN / "ckpts").iterdir())
    assert names[-1] == "last.ckpt"
    assert names[0].startswith("epoch=")
    assert Path(toy("validate", "--config", "top.yaml").trainer.ckpt_path).name == names[0]


def test_a_checkpoint_loads_without_running_code() -> None:
    toy("fit", "--config", "ema")
    state = torch.load(RUN / "ckpts/last.ckpt", weights_only=True)
    assert "net.layers.0.weight" in state["state_dict"]
    assert "hyper_parameters" not in state


def test_an_unwritable_directory_stops_before_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("runs").write_text("a file in the way")
    with pytest.raises(SystemExit) as stop:
        toy("fit")
    assert stop.value.code == 1
    assert "cannot write to" in last_line(capsys)


def test_the_environment_is_recorded_for_every_start() -> None:
    toy("fit", "--trainer.max_epochs", "1")
    toy("fit")
    record = json.loads((RUN / "environment.json").read_text())
    assert record["seed"] == 0
    assert record["data"] == "toy"
    assert {"torch", "lightning", "numpy", "hepattn"} <= record["versions"].keys()
    assert len(record["earlier"]) == 1


def test_the_saved_config_is_the_run_it_describes() -> None:
    toy("fit", "--run.name", "mine", "--model.net.dim", "6", "--trainer.max_epochs", "1")
    saved = Path("runs/mine/config.yaml").absolute()
    cli = toy("fit", "--trainer.max_epochs", "2", config=saved)
    assert cli.run_directory.name == "mine"
    assert cli.trainer.global_step == 8


def test_a_requeued_job_continues_from_its_newest_state(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "run")
    directory.checkpoints.mkdir(parents=True)
    for file in (directory.path / "hpc_ckpt_1.ckpt", directory.checkpoints / "last.ckpt"):
        file.touch()
    os.utime(directory.path / "hpc_ckpt_1.ckpt", (1, 1))
    assert directory.newest_checkpoint() == directory.checkpoints / "last.ckpt"
    os.utime(directory.checkpoints / "last.ckpt", (0, 0))
    assert directory.newest_checkpoint().name == "hpc_ckpt_1.ckpt"


@pytest.mark.parametrize("name", ["a/b", "", "..", "/a"])
def test_a_run_name_is_a_plain_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="plain name"):
        RunDirectory(tmp_path, name)


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"name": "b"}},
        {"ckpt_path": "x"},
        {"trainer": {"max_epochs": 3, "logger": False}},
        {"trainer": {"callbacks": [{"class_path": "a.LearningRateMonitor"}]}},
        {"data": {"num_workers": 4}},
    ],
)
def test_reporting_and_duration_do_not_make_another_run(change: dict[str, Any]) -> None:
    old = {"run": {"name": "a"}, "trainer": {"max_epochs": 1}, "data": {"num_workers": 0}}
    assert list(config_differences(old, {**old, **change})) == []


def test_a_difference_inside_a_list_is_named() -> None:
    old = {"data": {"features": [{"name": "x"}, {"name": "y"}]}}
    new = {"data": {"features": [{"name": "x"}, {"name": "z"}]}}
    assert list(config_differences(old, new)) == ["data.features[1].name: y -> z"]


def test_a_training_starts_from_the_weights_of_another_run_and_nothing_else() -> None:
    first = toy("fit")
    options = ["--run.weights", "runs/toy/ckpts/last.ckpt", "--model.optimizer.init_args.lr", "0.0"]
    second = toy("fit", "--run.name", "second", *options, "--trainer.max_epochs", "1")
    assert_same_weights(first.model, second.model)
    assert second.trainer.global_step < first.trainer.global_step


def test_other_weights_to_start_from_make_another_run() -> None:
    without, null = {"model": 1}, {"model": 1, "run": {"name": "a", "weights": None}}
    one, other = ({"model": 1, "run": {"weights": name}} for name in ("a.ckpt", "b.ckpt"))
    assert list(config_differences(without, null)) == []
    assert list(config_differences(one, {"model": 1, "run": {"weights": "a.ckpt"}})) == []
    assert list(config_differences(one, other)) == ["run.weights: a.ckpt -> b.ckpt"]
    assert len(list(config_differences(without, one))) == 1


def test_weights_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"net.other": torch.ones(1)}}, "other.ckpt")
    with pytest.raises(SystemExit):
        toy("fit", "--run.weights", "other.ckpt")
    assert "other.ckpt does not fit the network" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        toy("fit", "--run.weights", "absent.ckpt", "--run.name", "b")
    assert "absent.ckpt: there is no such file" in capsys.readouterr().err


def test_a_new_option_that_is_null_is_no_difference() -> None:
    old = {"data": {"features": [{"name": "x"}]}}
    new = {"data": {"features": [{"name": "x", "fitted": None}]}}
    assert list(config_differences(old, new)) == []
    changed = {"data": {"features": [{"name": "x", "fitted": "standard"}]}}
    assert list(config_differences(old, changed)) == [
        "data.features[0].fitted: (absent) -> standard"
    ]


def test_other_processes_do_not_judge_what_the_first_has_just_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy("fit")
    monkeypatch.setattr("lightning.pytorch.Trainer.is_global_zero", False)
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda self, **kwargs: None)
    cli = toy("fit", "--run.resume", "false")
    assert cli.run_directory.path == RUN.absolute()
