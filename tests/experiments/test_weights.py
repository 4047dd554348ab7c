"""Runs of the experiments answer the same from a folder of weights, also without their data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from hepattn import cli
from hepattn.deploy.weights import from_pretrained, main
from hepattn.simulate.jets import JetConfig, simulate_jets
from hepattn.training.load import LoadedRun, load_run

pytestmark = pytest.mark.slow

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
SHORT += ["--trainer.log_every_n_steps", "1"]
SMALL = {
    "jets/tag": ["--data.num_simulated", "60", "--data.batch_size", "16"],
    "events/classify": ["--data.num_simulated", "400", "--data.batch_size", "64"],
    "events/density_ratio": ["--data.num_simulated", "400", "--data.batch_size", "64"],
    "trackml/hit_filter": ["--data.num_simulated", "4", "--data.batch_size", "2",
                           "--data.simulation.num_particles", "50"],
    "hypervae/train": ["--data.num_simulated", "60", "--data.batch_size", "8"],
    "xec/mae": ["--data.num_simulated", "60", "--data.batch_size", "4"],
}  # fmt: skip


def train(experiment: str, root: Path, *options: str) -> Path:
    args = [*QUIET, *SHORT, *SMALL[experiment], "--run.root", str(root), "--run.name", "run"]
    assert cli.main([experiment, "fit", *options, *args]) == 0
    return root / "run"


def write(run: Path, folder: Path, *options: str) -> LoadedRun:
    main([str(run), "--out", str(folder), *options])
    return from_pretrained(folder)


def numbers(value: Any) -> Iterator[Tensor]:
    return (x for x in tree_leaves(value) if isinstance(x, Tensor))


@torch.no_grad()
def assert_same(ours: LoadedRun, theirs: LoadedRun) -> None:
    batch = next(iter(theirs.test_batches()))
    answers = []
    for loaded in (ours, theirs):
        torch.manual_seed(0)  # for networks that draw
        answers.append(list(numbers(loaded.module(batch))))
    assert answers[0]
    for x, y in zip(*answers, strict=True):
        assert torch.equal(x.nan_to_num(), y.nan_to_num())
        assert torch.equal(x.isnan(), y.isnan())
    states = [loaded.module.state_dict() for loaded in (ours, theirs)]
    assert states[0].keys() == states[1].keys()
    for name, x in states[1].items():
        if isinstance(x, Tensor):
            assert x.dtype == states[0][name].dtype


def test_a_jet_tagger(simulated_cache: Path, tmp_path: Path) -> None:
    run = train("jets/tag", tmp_path, "--config", "pfn.yaml")
    assert_same(write(run, tmp_path / "w"), load_run(run))


@pytest.mark.parametrize("experiment", ["hypervae/train", "xec/mae", "events/density_ratio"])
def test_other_experiments(experiment: str, simulated_cache: Path, tmp_path: Path) -> None:
    run = train(experiment, tmp_path)
    assert_same(write(run, tmp_path / "w"), load_run(run))


def test_an_event_classifier_and_its_calibration(simulated_cache: Path, tmp_path: Path) -> None:
    run = train("events/classify", tmp_path, "--config", "mlp.yaml")
    plain = write(run, tmp_path / "plain")
    assert_same(plain, load_run(run))
    cli.main(["calibrate", str(run)])
    path = run / "ckpts" / "best_calibrated.ckpt"
    calibrated = write(run, tmp_path / "calibrated", "--checkpoint", str(path))
    assert_same(calibrated, load_run(run, path))
    scaling = calibrated.module.net.scaling.weight
    assert not torch.equal(scaling, plain.module.net.scaling.weight)


def test_a_folder_is_calibrated_and_written_again(simulated_cache: Path, tmp_path: Path) -> None:
    run = train("events/classify", tmp_path, "--config", "mlp.yaml")
    write(run, tmp_path / "w")
    cli.main(["calibrate", str(tmp_path / "w")])
    path = tmp_path / "w" / "ckpts" / "weights_calibrated.ckpt"
    again = write(tmp_path / "w", tmp_path / "again", "--checkpoint", str(path))
    assert_same(again, load_run(tmp_path / "w", path))
    assert "`weights_calibrated.ckpt`" in (tmp_path / "again" / "README.md").read_text()


def test_a_hit_filter_and_its_threshold(simulated_cache: Path, tmp_path: Path) -> None:
    run = train("trackml/hit_filter", tmp_path, "--config", "hit_filter.yaml")
    ours, theirs = write(run, tmp_path / "w"), load_run(run)
    assert_same(ours, theirs)
    assert ours.module.threshold.dtype == torch.float64
    assert torch.equal(ours.module.threshold, theirs.module.threshold)


def test_a_tagger_opens_where_the_files_of_its_data_are_not(tmp_path: Path) -> None:
    data = tmp_path / "jets"
    simulate_jets(data, 60, JetConfig(classes=("QCD", "Tbqq", "Hbb")))
    run = train("jets/tag", tmp_path, "--config", "pfn.yaml", "--data.path", str(data))
    write(run, tmp_path / "w")
    theirs = load_run(run)
    batch = next(iter(theirs.test_batches()))
    expected = theirs.module(batch)
    data.rename(tmp_path / "moved")
    ours = from_pretrained(tmp_path / "w")
    assert torch.equal(ours.module(batch), expected)
    moved = from_pretrained(tmp_path / "w", ["--data.path", str(tmp_path / "moved")])
    assert torch.equal(next(iter(moved.test_batches())).particles, batch.particles)


def test_weights_to_start_from_may_be_those_of_a_folder(
    simulated_cache: Path, tmp_path: Path
) -> None:
    run = train("jets/tag", tmp_path, "--config", "pfn.yaml")
    write(run, tmp_path / "w")
    weights = str(tmp_path / "w" / "weights.safetensors")
    options = ["--run.weights", weights, "--model.optimizer.init_args.lr", "0.0"]
    again = train("jets/tag", tmp_path / "again", "--config", "pfn.yaml", *options)
    before, after = load_run(run).module, load_run(again).module
    assert torch.equal(next(before.parameters()), next(after.parameters()))
