import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.testing import assert_close

from hepattn.training.callbacks import Requeue
from training.toy import ToyBatch, ToyModule, toy

pytestmark = pytest.mark.usefixtures("in_tmp_path")
LAST = Path("runs/toy/ckpts/last.ckpt")
OVERLAY = ("--config", "ema", "--config", "slurm")


class Killed(BaseException):
    """What SLURM does to a job that is queued again."""


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []

    def scontrol(command: list[str], **_: Any) -> None:
        commands.append(command)
        raise Killed

    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setattr(subprocess, "check_call", scontrol)
    return commands


def signalled(monkeypatch: pytest.MonkeyPatch, stage: str, *options: str) -> None:
    """Train until a signal in the second epoch has stopped the training."""
    name = f"{stage}_step"
    original = getattr(ToyModule, name)

    def step(self: LightningModule, batch: ToyBatch, batch_idx: int) -> Tensor:
        if self.current_epoch == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ToyModule, name, step)
        with pytest.raises(Killed):
            toy("fit", *OVERLAY, *options)


def saved() -> dict[str, Any]:
    return torch.load(LAST, weights_only=True)


def test_the_step_that_the_signal_finds_is_finished_and_saved(
    queued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled(monkeypatch, "training")
    assert queued == [["scontrol", "requeue", "12"]]
    assert saved()["global_step"] == 6


def test_gradients_that_are_being_added_up_are_used_first(
    queued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--trainer.accumulate_grad_batches", "4", "--trainer.max_epochs", "3"]
    signalled(monkeypatch, "training", *options)
    assert queued
    assert saved()["global_step"] == 2


def test_a_validation_that_the_signal_finds_is_finished_and_its_epoch_saved(
    queued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled(monkeypatch, "validation", "--trainer.max_epochs", "3")
    assert queued
    assert saved()["global_step"] == 8


def test_a_job_of_an_array_is_queued_by_its_own_number(
    queued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    signalled(monkeypatch, "training")
    assert queued == [["scontrol", "requeue", "40_3"]]


def test_a_cluster_that_refuses_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def scontrol(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(subprocess, "check_call", scontrol)
    with pytest.warns(UserWarning, match="job 12 could not be queued again"):
        signalled_to_the_end(monkeypatch)
    assert saved()["global_step"] == 8


def test_without_slurm_the_state_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.warns(UserWarning, match="outside of SLURM"):
        signalled_to_the_end(monkeypatch)


def signalled_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ToyModule.training_step

    def step(self: LightningModule, batch: ToyBatch, batch_idx: int) -> Tensor:
        if self.global_step == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ToyModule, "training_step", step)
    before = signal.getsignal(signal.SIGUSR1)
    toy("fit", *OVERLAY)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_continued_run_ends_as_one_that_was_left_alone(
    queued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the toy has a plain loader, which begins an epoch anew: stop at its last step
    whole = toy("fit", *OVERLAY, "--run.name", "whole")
    original = ToyModule.training_step

    def step(self: LightningModule, batch: ToyBatch, batch_idx: int) -> Tensor:
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ToyModule, "training_step", step)
        with pytest.raises(Killed):
            toy("fit", *OVERLAY)
    assert saved()["global_step"] == 4
    resumed = toy("fit", *OVERLAY)
    assert resumed.trainer.global_step == whole.trainer.global_step
    for name, weight in whole.model.state_dict().items():
        assert_close(resumed.model.state_dict()[name], weight, rtol=0, atol=0, msg=name)


def test_the_number_of_steps_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every_n_steps=0 must be at least 1"):
        Requeue(0)
