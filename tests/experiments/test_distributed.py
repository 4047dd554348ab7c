"""Two processes train as one with batches twice as large, and together see each row once."""

import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from experiments.test_configs import ON_CPU
from hepattn import cli

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """An experiment, small and without random numbers, so that both trainings are the same.

    Args:
        script: Name of the experiment.
        options: Its options.
        batch_size: Rows of a batch of one of two processes.
        exact: Name of a metric of the validation that does not depend on batches; None where the
            training draws random numbers, and the weights can't be compared.
    """

    script: str
    options: list[str] = field(default_factory=list)
    batch_size: int = 4
    exact: str | None = None

    def args(self, folder: Path, num_processes: int) -> list[str]:
        size = self.batch_size * (1 if num_processes == 2 else 2)
        devices = ["--trainer.devices", str(num_processes)]
        if num_processes == 2:
            devices += ["--trainer.strategy", "ddp"]
        recorder = ["--trainer.callbacks+", "experiments.recorder.Recorder"]
        recorder += ["--trainer.callbacks.file", str(folder / f"of_{num_processes}")]
        return [
            *(self.script, "fit", *self.options, *ON_CPU, *devices, *recorder),
            *("--data.batch_size", str(size), "--trainer.max_epochs", "2"),
            *("--trainer.logger", "false", "--trainer.num_sanity_val_steps", "0"),
            *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.02"),
            *("--model.schedule", "null", "--run.root", str(folder)),
            *("--run.name", f"run_{num_processes}"),
        ]

    def test_args(self, folder: Path, num_processes: int) -> list[str]:
        """Evaluate what one process has trained."""
        devices = ["--trainer.devices", str(num_processes)]
        devices += ["--trainer.strategy", "ddp" if num_processes == 2 else "auto"]
        return [
            *(self.script, "test", *ON_CPU, *devices, "--data.batch_size", "3"),
            *("--trainer.callbacks", "null", "--run.root", str(folder)),
            *("--run.name", f"run_{num_processes}"),
            *("--ckpt_path", str(folder / "run_1" / "ckpts" / "last.ckpt")),
        ]


JETS = ["--data.num_simulated", "53"]
EVENTS = ["--data.num_simulated", "157"]
XEC = ["--data.num_simulated", "27", "--trainer.gradient_clip_val", "0.1"]
XEC += ["--model.mirror", "false", "--model.encoder.dim", "16", "--model.encoder.width", "4"]
XEC += ["--model.encoder.hex_width", "4"]
TRACKML = ["--data.num_simulated", "21", "--data.simulation.num_particles", "30"]
TRACKML += ["--data.split", "[0.5,0.3,0.2]", "--trainer.gradient_clip_val", "0.1"]
ALL_HITS = ["--model.background_share", "1.0", "--model.sector", "1.0", "--model.mirror", "false"]
BLOCK = "--model.net.init_args.block"
NO_DROPOUT = [f"{BLOCK}.{name}=0.0" for name in ("activation_dropout", "dropout")]
NO_DROPOUT += ["--model.net.init_args.depth=2", f"{BLOCK}.attention.dropout=0.0"]
PLAIN = ["--model.net.init_args.dropout", "0.0", "--model.net.init_args.batchnorm", "false"]
STREAMED = ["--data.in_memory", "false"]
CASES = {
    "hit_filter": Case(
        "trackml/hit_filter",
        [*TRACKML, *ALL_HITS],
        batch_size=2,
        exact="val/auc",
    ),
    "part": Case(
        "jets/tag",
        ["--config", "part", *JETS, *NO_DROPOUT],
        exact="val/auc",
    ),
    "streamed jets": Case("jets/tag", ["--config", "pfn", *JETS, *STREAMED]),
    "mlp": Case("events/classify", ["--config", "mlp", *EVENTS, *PLAIN], 16, "val/auc"),
    "regress": Case("xec/regress", XEC, exact="val/error"),
    "hypervae": Case("hypervae/train", ["--data.num_simulated", "61"]),
}
TESTED = ("hit_filter", "mlp", "regress")


def run_process(rank: int, port: int, folder: Path) -> None:
    """Be one of two processes, and train everything in turn."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    for name, case in CASES.items():
        assert cli.main(case.args(folder / name, 2)) == 0
    for name in TESTED:
        assert cli.main(CASES[name].test_args(folder / name, 2)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def trained(simulated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    for name, case in CASES.items():
        assert cli.main(case.args(folder / name, 1)) == 0
    for name in TESTED:
        assert cli.main(CASES[name].test_args(folder / name, 1)) == 0
    torch.multiprocessing.spawn(run_process, (free_port(), folder), nprocs=2)
    return folder


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    """Records of the one process and of the two."""
    files = [folder / name / f"{stem}.pt" for stem in ("of_1_0", "of_2_0", "of_2_1")]
    return [torch.load(file) for file in files]


@pytest.mark.parametrize("name", CASES)
def test_an_epoch_sees_every_row_once(trained: Path, name: str) -> None:
    one, *two = load(trained, name)
    assert len({record["num_rows"] for record in two}) == 1 or name == "hypervae"
    for stage in ("train", "val"):
        batches = one["rows"][stage]
        shares = [record["rows"][stage] for record in two]
        assert len(shares[0]) == len(shares[1])
        for epoch in range(2):
            rows = sorted(row for batch in half(batches, epoch) for row in batch)
            assert len(rows) == len(set(rows)) > 3
            together = [row for own in shares for batch in half(own, epoch) for row in batch]
            assert sorted(together) == rows


def half(batches: list[list[int]], epoch: int) -> list[list[int]]:
    """The batches of one of two epochs."""
    middle = len(batches) // 2
    return batches[middle:] if epoch else batches[:middle]


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("streamed")])
def test_steps_are_those_of_one_process(trained: Path, name: str) -> None:
    one, *two = load(trained, name)
    shares = zip(*(record["rows"]["train"] for record in two), strict=True)
    steps = [sorted([*first, *second]) for first, second in shares]
    assert steps == [sorted(rows) for rows in one["rows"]["train"]]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.exact])
def test_weights_and_figures_are_those_of_one_process(trained: Path, name: str) -> None:
    one, *two = load(trained, name)
    for record in two:
        assert_close(record["weights"], one["weights"], atol=1e-5, rtol=1e-4)
        metric = CASES[name].exact
        assert record["metrics"][metric] == pytest.approx(one["metrics"][metric], abs=1e-4)


@pytest.mark.parametrize("name", TESTED)
def test_an_evaluation_of_two_processes_has_the_figures_of_one(trained: Path, name: str) -> None:
    one, two = (
        json.loads(
            (trained / name / f"run_{number}" / "eval" / "test" / "metrics.json").read_text()
        )
        for number in (1, 2)
    )
    # resampled uncertainties and fits to training events depend on the order of events
    drawn = ("_error", "sum of photons", "light of a point", "by least squares", "times of flight")
    expected, found = (
        {key: x for key, x in flatten(figures).items() if not any(name in key for name in drawn)}
        for figures in (one, two)
    )
    assert len(expected) > 5
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        if isinstance(value, float):
            assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), key
        else:
            assert found[key] == value, key


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """The numbers of nested mappings and lists, by their keys."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, item in items for k, v in flatten(item, f"{key}.{name}").items()}
    return {key: value}
