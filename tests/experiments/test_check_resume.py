"""Trainings that are killed with SIGKILL at random times end as those that were left alone."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from hepattn import cli
from hepattn.training import check_resume
from hepattn.training.callbacks import LoaderState
from hepattn.training.check_resume import kill_and_resume
from hepattn.training.run_directory import RunDirectory

ON_CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
WITHIN = ["--run.save_every_n_steps", "2"]
EVENTS = ["--data.num_simulated", "2000", "--data.batch_size", "32", "--trainer.max_epochs", "2"]
JETS = ["--config", "pfn", "--data.num_simulated", "300", "--data.batch_size", "8"]
JETS += ["--trainer.max_epochs", "2", "--data.in_memory", "false", "--data.num_workers", "2"]
HITS = ["--data.num_simulated", "20", "--data.simulation.num_particles", "40"]
CASES = {
    "in memory, dropout, average": ["events/classify", "fit", *EVENTS, "--config", "ema", *WITHIN],
    "streamed, two workers": ["jets/tag", "fit", *JETS, *WITHIN],
    "between epochs": ["trackml/hit_filter", "fit", *HITS],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_killed_training_ends_as_one_that_was_left_alone(
    name: str,
    python: Path,
    simulated_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", str(python))
    command, log = [*CASES[name], *ON_CPU], tmp_path / "log.txt"
    found = kill_and_resume(command, tmp_path, kills=2, log=log)
    assert not found.differences
    assert found.num_steps > 20
    assert found.steps


def test_what_differs_is_named(tmp_path: Path) -> None:
    a = {"weights": [1.0, float("nan")], "step": 3, "lr": {"a": 0.1}}
    b = {"weights": [1.0, float("nan")], "step": 4, "lr": {"b": 0.1}}
    assert list(check_resume._differences(a, a, "x")) == []
    assert list(check_resume._differences(a, b, "x")) == ["x.step", "x.lr"]


def test_a_folder_with_runs_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whole").mkdir()
    with pytest.raises(SystemExit) as stop:
        check_resume.main(["events/classify", "--root", str(tmp_path)])
    assert stop.value.code == 1
    assert "whole exists already" in capsys.readouterr().err


def test_a_training_that_fails_says_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check_resume.main(["no/experiment", "--root", str(tmp_path / "new")])
    error = capsys.readouterr().err
    assert "ended with code 2" in error
    assert "log.txt" in error
    assert "is no experiment" in (tmp_path / "new" / "log.txt").read_text()


class Stop(Callback):
    """Stops the training where its first validation begins."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            raise InterruptedError


@pytest.mark.slow
@pytest.mark.parametrize("interval", ["1.0", "0.5"])
def test_no_state_is_saved_between_a_batch_and_the_validation_after_it(
    interval: str, simulated_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data.num_simulated", "400", "--data.batch_size", "16", *ON_CPU]
    options += ["--trainer.max_epochs", "2", "--trainer.val_check_interval", interval]
    options += ["--trainer.logger", "false", "--run.save_every_n_steps", "1"]
    command = ["events/classify", "fit", *options, "--run.root", str(tmp_path), "--run.name"]
    whole, stopped = (RunDirectory(tmp_path, name) for name in ("whole", "stopped"))
    assert cli.main([*command, whole.name]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(LoaderState, "on_validation_start", Stop.on_validation_start)
        with pytest.raises(InterruptedError):
            cli.main([*command, stopped.name])
    assert cli.main([*command, stopped.name]) == 0
    assert list(check_resume._compare(whole, stopped)) == []
