"""The hit filter from the command line: fit, test and predict, on simulated and real events."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.data.trackml import HitBatch, ParticleSelection, make_targets, open_events
from hepattn.experiments.trackml.data import TrackMLData
from hepattn.experiments.trackml.hit_filter import LINKS, HitFilter, main
from hepattn.losses.classification import BinaryCrossEntropy
from hepattn.models.doublet_classifier import DoubletClassifier
from hepattn.nn.doublets import DoubletFinder
from hepattn.nn.normalise import Feature
from hepattn.simulate.tracker import TrackerConfig
from hepattn.training.cli import run

SMALL = ["--config", "hit_filter.yaml", "--data.num_simulated", "6", "--data.batch_size", "2"]
SMALL += ["--data.simulation.num_particles", "50", "--trainer.enable_progress_bar", "false"]
SMALL += ["--trainer.log_every_n_steps", "1"]
GOLDEN_LOSS = 1.15962
NETWORK = ["--model.net.init_args.dim", "16", "--model.net.init_args.depth", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, simulated_cache: Path) -> Path:
    """The directory of a run that trained two epochs."""
    root = tmp_path_factory.mktemp("runs")
    main(["fit", *SMALL, *NETWORK, "--run.root", str(root), "--trainer.max_epochs", "2"])
    return root / "hit_filter"


def evaluate(stage: str, trained: Path, *options: str) -> Path:
    before = set(trained.glob("eval/*"))
    main([stage, *SMALL, *NETWORK, "--run.root", str(trained.parent), *options])
    (folder,) = set(trained.glob("eval/*")) - before
    return folder


def test_training_leaves_checkpoints_config_and_provenance(trained: Path) -> None:
    assert (trained / "ckpts" / "best.ckpt").is_file()
    assert (trained / "ckpts" / "last.ckpt").is_file()
    assert (trained / "config.yaml").is_file()
    split = json.loads((trained / "split.json").read_text())
    assert len({*split["train"], *split["val"], *split["test"]}) == 6
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["data"]


@pytest.mark.parametrize("overlay", [[], ["--config", "ema"]], ids=["plain", "ema"])
def test_checkpoint_carries_the_threshold_of_its_own_validation(
    overlay: list[str], simulated_cache: Path, tmp_path: Path
) -> None:
    options = [*SMALL, *NETWORK, *overlay, "--run.root", str(tmp_path)]
    main(["fit", *options, "--trainer.max_epochs", "1"])
    weights = torch.load(tmp_path / "hit_filter/ckpts/last.ckpt", weights_only=True)["state_dict"]
    cli = run(HitFilter, TrackMLData, links=LINKS, args=["validate", *SMALL, *NETWORK,
              "--run.root", str(tmp_path), "--ckpt_path", "last"])  # fmt: skip
    assert cli.trainer.callback_metrics["val/threshold"] == pytest.approx(weights["threshold"])
    assert cli.trainer.callback_metrics["val/hit_efficiency"] >= 0.98


def test_an_evaluation_uses_the_config_of_its_run(simulated_cache: Path, tmp_path: Path) -> None:
    options = ["--run.root", str(tmp_path), "--data.selection.min_pt", "0.5"]
    main(["fit", *SMALL, *NETWORK, *options, "--trainer.max_epochs", "1"])
    evaluation = ["test", "--config", "hit_filter.yaml", "--run.root", str(tmp_path)]
    cli = run(HitFilter, TrackMLData, links=LINKS, args=evaluation)
    assert cli.datamodule.selection.min_pt == 0.5
    assert cli.model.net.doublet.anchor.out_features == 16


def test_a_bad_event_is_skipped_when_asked_for(
    trained: Path, simulated_cache: Path, tmp_path: Path
) -> None:
    data = TrackMLData((Feature("x"),), simulation=TrackerConfig(50), num_simulated=6)
    raw = data.source.path.parent / "raw"
    shutil.copytree(raw, tmp_path / "raw")
    broken = tmp_path / "raw" / f"{data.split().test[0]}-hits.csv.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    options = ["--data.path", str(tmp_path / "raw"), "--data.skip_bad", "true"]
    options += ["--data.split", "[0.0, 0.0, 1.0]"]
    numbers = json.loads((evaluate("test", trained, *options) / "metrics.json").read_text())
    assert numbers["figures"]["num_hits"] > 0


def test_evaluation_writes_numbers_plots_and_scores(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = evaluate("test", trained)
    printed = capsys.readouterr().out
    for figure in ("hit efficiency", "hit purity", "particles retained"):
        assert figure in printed
    numbers = json.loads((folder / "metrics.json").read_text())
    value, low, high = numbers["figures"]["hit_efficiency"]
    assert 0 <= low <= value <= high <= 1
    plots = {path.name for path in folder.glob("*.png")}
    assert plots == {"scores.png", "threshold_scan.png", "particles_retained.png", "event.png"}
    rows = pq.read_table(folder / "predictions.parquet")
    assert rows.num_rows == numbers["figures"]["num_hits"]
    assert rows["keep"].to_numpy().sum() == numbers["figures"]["num_kept"]


def test_a_configured_threshold_beats_the_checkpoints(trained: Path) -> None:
    folder = evaluate("test", trained, "--model.threshold", "0.25")
    assert json.loads((folder / "metrics.json").read_text())["figures"]["threshold"] == 0.25
    rows = pq.read_table(folder / "predictions.parquet")
    np.testing.assert_array_equal(rows["keep"], rows["score"].to_numpy() >= 0.25)


@pytest.mark.slow
def test_a_second_evaluation_keeps_the_first(trained: Path) -> None:
    first, second = evaluate("test", trained), evaluate("test", trained)
    assert first != second
    assert (first / "metrics.json").read_text() == (second / "metrics.json").read_text()


def test_predictions_hold_each_selected_hit_once_in_input_order(trained: Path) -> None:
    rows = pq.read_table(evaluate("predict", trained) / "predictions.parquet")
    assert len(set(zip(rows["event"].to_pylist(), rows["hit_id"].to_pylist(), strict=True))) == (
        rows.num_rows
    )
    assert rows["event"].to_pylist() == sorted(rows["event"].to_pylist())


class Echo(nn.Module):
    """A network that answers with its input."""

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return x


def test_training_mirrors_some_events_and_an_evaluation_none() -> None:
    features = tuple(Feature(name) for name in ("x", "z", "r", "eta", "geta"))
    module = HitFilter(features, lambda _: Echo(), nn.Identity(), torch.optim.SGD, mirror=True)
    hits = torch.randn(20, 3, 5)
    fields = {"hits": hits, "valid": torch.ones(20, 3).bool()}
    batch = HitBatch(**dict.fromkeys(HitBatch._fields) | fields)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    seen = module(batch)
    mirrored = (seen != hits).flatten(1).any(1)
    assert 0 < mirrored.sum() < 20
    mirrored = mirrored[:, None, None]
    assert_close(seen, torch.where(mirrored, signs * hits, hits))
    assert_close(module.eval()(batch), hits)


def sampling_module(**options: float) -> tuple[HitFilter, HitBatch]:
    """A hit filter that trains on samples, in training, and events of 400 and 300 hits for it."""
    features = tuple(Feature(name) for name in ("phi", "r", "z"))
    finder = DoubletFinder(num_doublets=8, num_neighbours=16)
    module = HitFilter(
        features,
        lambda features: DoubletClassifier(features, finder, num_attended=4),
        BinaryCrossEntropy(),
        torch.optim.SGD,
        **options,
    )
    valid = torch.arange(400) < torch.tensor([[400], [300]])
    phi = (2 * torch.rand(valid.shape) - 1) * math.pi
    hits = torch.stack([phi, 30 + 150 * torch.rand(valid.shape), torch.randn(valid.shape)], -1)
    fields = {"hits": hits, "valid": valid, "label": valid & (torch.rand(valid.shape) < 0.1)}
    fields["particle_id"] = torch.randint(100, valid.shape)
    return module.train(), HitBatch(**dict.fromkeys(HitBatch._fields) | fields)


def test_a_drawn_hit_counts_for_those_that_were_not_drawn() -> None:
    module, batch = sampling_module(background_share=0.2)
    weight = module(batch).weight
    assert (weight[batch.label] == 1).all()
    assert (weight[~batch.valid] == 0).all()
    others = weight[batch.valid & ~batch.label]
    assert others.unique().tolist() == pytest.approx([0, 5])
    assert others.sum().item() == pytest.approx(len(others), rel=0.3)


def test_hits_of_a_sector_exchange_messages() -> None:
    module, batch = sampling_module(background_share=0.2, sector=0.25)
    outputs = module(batch)
    for event, count in enumerate((400, 300)):
        order = batch.hits[event, :count, 0].argsort()
        inner, seen = outputs.inner[event][order], outputs.logit[event][order] != 0
        size, margin = count // 4, count // 4 // 8
        assert not outputs.inner[event, count:].any()
        for is_in, number in ((inner, size - 2 * margin), (seen, size)):
            assert is_in.sum() == number
            assert (is_in != is_in.roll(1)).sum() == 2  # one range, cyclic in φ
        start = int((seen & ~seen.roll(1)).nonzero())
        assert inner.roll(-start)[margin : size - margin].all()


def test_the_whole_event_is_a_sector_without_ends() -> None:
    module, batch = sampling_module(background_share=0.2, sector=1.0)
    assert_close(module(batch).inner, batch.valid)


def test_each_part_of_a_sampling_network_learns_messages_from_sectors_alone() -> None:
    module, batch = sampling_module(background_share=0.2, doublet_weight=1.0)
    losses = module.losses(batch, module(batch))
    assert set(losses) == {"hit", "hit_alone", "screen", "doublet"}
    losses["hit"].backward()
    learns = {name.split(".")[0] for name, p in module.net.named_parameters() if p.grad is not None}
    assert learns == {"state", "rounds", "correction"}
    sum(losses[name] for name in ("hit_alone", "screen", "doublet")).backward()
    assert all(p.grad.abs().sum() > 0 for p in module.net.parameters())


@pytest.mark.data
@pytest.mark.parametrize("folder", ["trackml", "trackml/barrel"])
@pytest.mark.filterwarnings("ignore:.*cannot be split:UserWarning")
@pytest.mark.filterwarnings("ignore:.*no columns for the features:UserWarning")
def test_real_events_train_test_and_predict_from_raw_csv(
    folder: str, trained: Path, data_dir: Path, tmp_path: Path
) -> None:
    path = ["--data.path", str(data_dir / folder)]
    main(["fit", *SMALL, *path, "--run.root", str(tmp_path), "--trainer.fast_dev_run", "2"])
    assert not list(tmp_path.iterdir())
    numbers = json.loads((evaluate("test", trained, *path) / "metrics.json").read_text())
    event = open_events(data_dir / folder).read(0)
    assert numbers["figures"]["num_hits"] == ParticleSelection().select(event).sum()
    rows = pq.read_table(evaluate("predict", trained, *path) / "predictions.parquet")
    targets = make_targets(event, ParticleSelection())
    np.testing.assert_array_equal(rows["hit_id"], event.hits["hit_id"][targets.selected])


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:.*no columns for the features:UserWarning")
def test_hits_alone_are_enough_to_predict(trained: Path, data_dir: Path, tmp_path: Path) -> None:
    name = "event000001000-hits.csv"
    (tmp_path / name).write_bytes((data_dir / "trackml" / "barrel" / name).read_bytes())
    rows = pq.read_table(
        evaluate("predict", trained, "--data.path", str(tmp_path)) / "predictions.parquet"
    )
    hits = csv.read_csv(tmp_path / name)
    expected = [i for i, v in zip(hits["hit_id"], hits["volume_id"], strict=True) if v.as_py() == 8]
    assert rows["hit_id"].to_pylist() == [i.as_py() for i in expected]


def test_splits_are_disjoint_complete_and_repeatable(simulated_cache: Path) -> None:
    def make(seed: int) -> TrackMLData:
        return TrackMLData(
            (Feature("x"),), simulation=TrackerConfig(50), num_simulated=6, seed=seed
        )

    data = make(0)
    data.prepare_data()
    split = data.split()
    parts = [split.train, split.val, split.test]
    assert sorted(sum(parts, ())) == sorted(data.names)
    assert split == make(0).split()
    assert data.fingerprint() == make(0).fingerprint()


BAD_INPUT = {
    "missing path": (["--data.path", "nowhere"], r"nowhere"),
    "unknown feature": (["--data.features", "[{name: radius}]"], r"radius"),
    "misspelt key": (["--data.batch_sise", "3"], r"batch_sise"),
    "misspelt key of the network": (["--model.net.init_args.widht", "3"], r"widht"),
    "linked key": (["--model.min_hits", "4"], r"min_hits"),
    "senseless split": (["--data.split", "[0.5, 0.6, 0.1]"], r"data.split=(0.5, 0.6, 0.1)"),
    "empty batch": (["--data.batch_size", "0"], r"data.batch_size=0"),
    "missing extra": (["--data.simulation.generator", "pythia8"], r"hepattn[generators]"),
    "senseless efficiency": (["--model.hit_efficiency", "1.5"], r"hit_efficiency=1.5"),
    "senseless share": (["--model.background_share", "0.0"], r"background_share=0.0"),
    "senseless sector": (["--model.sector", "1.5"], r"sector=1.5"),
    "senseless weight": (["--model.doublet_weight", "-1.0"], r"doublet_weight=-1.0"),
    "a feature that no sign mirrors": (
        ["--data.features", "[{name: phi}, {name: r}, {name: z}, {name: theta}]"],
        r"use eta, not theta",
    ),
    "options of another network": (
        ["--config", "hit_filter_paper.yaml", "--model.doublet_weight", "1.0"],
        r"are for a DoubletClassifier",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_stops_with_one_clear_line(
    case: str,
    simulated_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)  # as if it were not installed
    options, message = BAD_INPUT[case]
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, *options, "--run.root", str(tmp_path)])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error:")
    assert message in last


def test_a_filter_of_filtered_hits_is_refused(
    simulated_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scores = {"event": [0], "hit_id": [1], "score": [0.5], "keep": [True]}
    pq.write_table(pa.table(scores), tmp_path / "scores.parquet")
    options = ["--data.hit_scores.path", str(tmp_path / "scores.parquet")]
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, *options, "--run.root", str(tmp_path)])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: data.hit_scores is for tracking")


def test_an_unwritable_run_directory_stops_before_the_training(
    simulated_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    blocker = tmp_path / "runs"
    blocker.write_text("a file where the folder should be")
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, "--run.root", str(blocker)])
    assert str(blocker) in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_golden_loss(simulated_cache: Path, tmp_path: Path) -> None:
    """A refactor leaves the loss of the shipped config as it is; a change of physics updates it."""
    options = [*SMALL, "--run.root", str(tmp_path), "--trainer.max_epochs", "1"]
    cli = run(HitFilter, TrackMLData, config="hit_filter.yaml", links=LINKS, args=["fit", *options])
    assert float(cli.trainer.callback_metrics["val/loss"]) == pytest.approx(GOLDEN_LOSS, rel=1e-3)
