"""The SLURM template, run by commands that behave as those of SLURM."""

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hepattn
from hepattn.training.check_resume import _differences as differences

TEMPLATE = Path(__file__).parents[2] / "scripts" / "slurm" / "train.sbatch"
SMALL = ["events/classify", "--config", "mlp", "--data.num_simulated", "2000"]
SMALL += ["--data.batch_size", "16", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "3"]
SMALL += ["--run.save_every_n_steps", "1000"]
SRUN = """
while [[ $1 == --* ]]; do echo "$1" >> "$FAKE/srun"; shift; done
export SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
export SLURM_NNODES=1 SLURM_NODELIST=localhost
echo $$ > "$FAKE/task"
exec "$@"
"""
SCONTROL = 'echo "$@" >> "$FAKE/scontrol"\n'


class Cluster:
    """Submits the template as SLURM would: its options as variables, its body in bash."""

    def __init__(self, folder: Path, cache: Path, python: Path) -> None:
        self.folder = folder
        commands = folder / "bin"
        commands.mkdir()
        entry = f'exec {python} -m hepattn.cli "$@"\n'
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, "hepattn": entry}.items():
            file = commands / name
            file.write_text("#!/bin/bash\n" + text)
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", TEMPLATE.read_text(), re.MULTILINE))
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM")},
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(hepattn.__file__).parents[1]),
            "FAKE": str(folder),
            "HEPATTN_CACHE": str(cache),
            "SLURM_JOB_ID": "4321",
            "SLURM_JOB_NAME": options["job-name"],
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_CPUS_PER_TASK": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(TEMPLATE), *arguments],
            env=self.environment,
            cwd=self.folder.parent,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> str:
        job = self.start(*arguments)
        output, _ = job.communicate(timeout=300)
        assert job.returncode == 0, output
        return output

    def noted(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def cluster(tmp_path: Path, python: Path) -> Cluster:
    folder = tmp_path / "submitted"
    folder.mkdir()
    return Cluster(folder, tmp_path / "cache", python)


def wait_for(what: Callable[[], object], job: subprocess.Popen[str], seconds: int = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert job.poll() is None, f"the job ended early: {job.communicate()[0]}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def state(run: Path) -> dict:
    return torch.load(run / "ckpts" / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_a_requeued_job_ends_with_the_weights_of_one_that_was_never_stopped(
    cluster: Cluster,
) -> None:
    runs = cluster.folder / "runs"
    cluster.run(*SMALL, "--run.name", "whole")
    arguments = (*SMALL, "--run.name", "stopped")
    job = cluster.start(*arguments)
    try:
        events = (runs / "stopped" / "logs").glob
        wait_for(lambda: any(events("events*")) and (runs / "stopped/config.yaml").exists(), job)
        time.sleep(1)
        os.kill(int(cluster.noted("task")[0]), signal.SIGUSR1)
        wait_for(lambda: cluster.noted("scontrol"), job)
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
    assert cluster.noted("scontrol") == ["requeue 4321"]
    saved = state(runs / "stopped")
    whole = state(runs / "whole")
    assert 0 < saved["global_step"] < whole["global_step"]
    assert "saved after step" not in cluster.run(*arguments)
    again = state(runs / "stopped")
    assert again["global_step"] == whole["global_step"]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert list(differences(whole[part], again[part], part)) == []
    assert not list(runs.glob("*/hpc_ckpt*"))


def test_the_overlay_is_added_unless_it_was_named(cluster: Cluster) -> None:
    record = 'printf "%s " "$@" > "$FAKE/command"\n'
    (cluster.folder / "bin" / "hepattn").write_text("#!/bin/bash\n" + record)
    cluster.run("jets/tag", "--config", "pfn", "--run.name", "slurm_1")
    assert cluster.noted("command") == [
        "jets/tag fit --config pfn --run.name slurm_1 --config slurm "
    ]
    cluster.run("jets/tag", "--config", "slurm", "--trainer.log_every_n_steps", "5")
    assert cluster.noted("command") == [
        "jets/tag fit --config slurm --trainer.log_every_n_steps 5 "
    ]
    assert "--cpus-per-task=1" in cluster.noted("srun")
