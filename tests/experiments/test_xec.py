"""The three tasks on the liquid-xenon detector from the command line, on simulated events."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uproot
from torch import Tensor

from hepattn import cli
from hepattn.data.xec import open_xec
from hepattn.experiments.xec import plots
from hepattn.experiments.xec.data import XecData
from hepattn.experiments.xec.estimates import UNITS
from hepattn.physics import xec
from hepattn.training.figures import new_figure
from hepattn.training.load import load_run

pytestmark = pytest.mark.slow

NUM_EVENTS, NUM_BLIND = 30, 12
SPLIT = {"train": 0.5, "val": 0.25, "test": 0.25, "calib": 0.0}
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
DATA = ["--data.num_simulated", str(NUM_EVENTS), "--data.batch_size", "8"]
DATA += ["--data.split", json.dumps(SPLIT)]
ENCODER = {"dim": 16, "width": 4, "hex_width": 8, "num_heads": 2}
TASKS = {
    "mae": ["--model.decoder_width", "8"],
    "inpaint": ["--model.head_width", "8"],
    "regress": ["--model.hidden", "8"],
}
TRUTH = ("energyTruth", "timeTruth", "uvwTruth", "emiVec", "time_min_used")


def run(task: str, command: str, root: Path, *options: str) -> None:
    args = [f"xec/{task}", command, *QUIET, *DATA, *TASKS[task], "--run.root", str(root)]
    for name, value in ENCODER.items():
        args += [f"--model.encoder.{name}", str(value)]
    args += ["--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0"]
    assert cli.main([*args, "--trainer.max_epochs", "1", *options]) == 0


def stopped(
    capsys: pytest.CaptureFixture[str], code: int, task: str, command: str, root: Path, *rest: str
) -> str:
    """The one line of an error."""
    with pytest.raises(SystemExit) as stop:
        run(task, command, root, *rest)
    assert stop.value.code == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def runs(simulated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each task, trained for one epoch and tested."""
    root = tmp_path_factory.mktemp("runs")
    for task in TASKS:
        run(task, "fit", root)
        run(task, "test", root)
    return root


@pytest.fixture(scope="module")
def unlabelled(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some of the events, without the truth."""
    (source,) = XecData(num_simulated=NUM_EVENTS).source.files
    with uproot.open(source) as file:
        columns = file["tree"].arrays(entry_stop=NUM_BLIND, library="np")
    columns = {name: x for name, x in columns.items() if name not in TRUTH}
    path = tmp_path_factory.mktemp("data") / "data.root"
    with uproot.recreate(path) as file:
        types = {name: np.dtype((x.dtype, x.shape[1:])) for name, x in columns.items()}
        file.mktree("tree", types).extend(columns)
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots, which take longer than all else."""
    for name in ("events", "errors", "residuals", "resolution", "calibration"):
        monkeypatch.setattr(plots, f"plot_{name}", lambda *_: new_figure(1)[0])


def figures(runs: Path, task: str, name: str = "test") -> dict:
    return json.loads((runs / task / "eval" / name / "metrics.json").read_text())


def newest(runs: Path, task: str, command: str) -> Path:
    folders = (runs / task / "eval").glob(f"{command}*")
    return max(folders, key=lambda path: path.stat().st_mtime)


@pytest.mark.parametrize("task", ["mae", "inpaint"])
def test_test_writes_the_errors_of_what_is_told_of_hidden_sensors(runs: Path, task: str) -> None:
    found = figures(runs, task)
    assert found["faces"] == list(xec.FACES)
    methods = found["root_photons"]
    assert list(methods) == ["network", "neighbour mean", "solid angle"]
    assert len({method["num"] for method in methods.values()}) == 1
    for plot in ("event.png", "errors.png"):
        assert (runs / task / "eval" / "test" / plot).stat().st_size > 10_000
    table = pq.read_table(runs / task / "eval" / "test" / "predictions.parquet")
    off = np.sqrt(table["photons"].to_numpy().clip(0)) - np.sqrt(
        table["true_photons"].to_numpy().clip(0)
    )
    assert methods["network"]["num"] == len(off)
    assert methods["network"]["rms"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-4)
    assert methods["network"]["bias"] == pytest.approx(off.mean(), rel=1e-3, abs=1e-4)
    face = xec.sensors().face[table["sensor"].to_numpy()]
    for number, rms in enumerate(methods["network"]["rms_of_groups"]):
        assert rms == pytest.approx(np.sqrt(np.mean(off[face == number] ** 2)), rel=1e-4)


def test_test_writes_the_resolutions_of_a_regression(runs: Path) -> None:
    found = figures(runs, "regress")
    assert found["units"] == UNITS
    for number in UNITS:
        assert len(found[number]) >= 2  # the network, and something to beat
        assert found[number]["network"]["res68"] > 0
    folder = runs / "regress" / "eval" / "test"
    for plot in ("residuals.png", "resolution.png", "calibration.png"):
        assert (folder / plot).stat().st_size > 10_000
    table = pq.read_table(folder / "predictions.parquet")
    off = np.abs(table["energy"].to_numpy() / table["true_energy"].to_numpy() - 1)
    assert 0 < len(off) < NUM_EVENTS
    assert set(table.column_names) >= {"run", "event", "start", "u", "w_error", "direction_x"}
    assert not {"direction_x_error", "true_direction_x_error"} & set(table.column_names)


@pytest.mark.parametrize("task", ["mae", "inpaint"])
def test_predict_fills_in_what_is_dead(runs: Path, unlabelled: Path, task: str) -> None:
    run(task, "predict", runs, "--data.predict_path", str(unlabelled))
    table = pq.read_table(newest(runs, task, "predict") / "predictions.parquet")
    times = ["time"] if task == "mae" else []
    assert table.column_names == ["run", "event", "sensor", "photons", *times]
    batch = open_xec(unlabelled).read(0, NUM_BLIND)
    event, sensor = (~batch.valid).nonzero(as_tuple=True)
    assert table["event"].to_pylist() == batch.event[event].tolist()
    assert table["sensor"].to_pylist() == sensor.tolist()
    assert np.isfinite(table["photons"].to_numpy()).all()


def test_predictions_of_a_regression_are_the_same_with_and_without_the_truth(
    runs: Path, unlabelled: Path
) -> None:
    streamed = ["--data.in_memory", "false"]
    run("regress", "predict", runs, "--data.predict_path", str(unlabelled), *streamed)
    blind = pq.read_table(newest(runs, "regress", "predict") / "predictions.parquet")
    assert not [name for name in blind.column_names if name.startswith("true_")]
    run("regress", "predict", runs)
    table = pq.read_table(newest(runs, "regress", "predict") / "predictions.parquet")
    assert table["event"].to_pylist() == list(range(NUM_EVENTS))
    for name in ("energy", "energy_error", "u", "v_error", "direction_z"):
        ours, theirs = blind[name].to_numpy(), table[name].to_numpy()[:NUM_BLIND]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    data = XecData(num_simulated=NUM_EVENTS).source.read(0, NUM_EVENTS)
    np.testing.assert_allclose(table["true_energy"], data.energy, rtol=1e-6)
    np.testing.assert_allclose(table["true_v"], data.position[:, 1])
    clock = data.start.double() + data.first_time
    np.testing.assert_allclose(table["true_start"], clock, atol=1e-5)
    np.testing.assert_allclose(
        table["start"].to_numpy()[:NUM_BLIND] - data.first_time[:NUM_BLIND].numpy(),
        blind["start"],
        atol=1e-4,
    )  # without the clock of the run, after the first time
    direction = np.stack([table[f"direction_{axis}"].to_numpy() for axis in "xyz"])
    np.testing.assert_allclose((direction**2).sum(0), 1, atol=1e-5)


def test_a_test_without_the_truth_says_so(
    runs: Path, unlabelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.path", str(unlabelled)]
    assert "truth" in stopped(capsys, 1, "regress", "test", runs, *options)
    assert "truth" in stopped(capsys, 1, "regress", "fit", runs, *options, "--run.name", "blind")


@pytest.mark.usefixtures("undrawn")
def test_hidden_sensors_are_the_truth_of_events_without_one(runs: Path, unlabelled: Path) -> None:
    run("inpaint", "test", runs, "--data.path", str(unlabelled))
    found = json.loads((newest(runs, "inpaint", "test") / "metrics.json").read_text())
    assert found["root_photons"]["network"]["num"] > 100


@pytest.mark.usefixtures("undrawn")
def test_events_that_stream_give_the_figures_of_events_in_memory(runs: Path) -> None:
    for task in ("inpaint", "regress"):
        run(task, "test", runs, "--data.in_memory", "false", "--data.batch_size", "3")
        old, new = (
            json.loads((folder / "metrics.json").read_text())
            for folder in (runs / task / "eval" / "test", newest(runs, task, "test"))
        )
        assert_alike(old, new)


def assert_alike(ours: object, theirs: object) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert_alike(value, theirs[key])
    elif isinstance(ours, list):
        for pair in zip(ours, theirs, strict=True):
            assert_alike(*pair)
    elif isinstance(ours, float):
        assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-4, nan_ok=True)
    else:
        assert ours == theirs


def test_validate_runs_on_the_best_weights(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("regress", "validate", runs)
    assert "val/position" in capsys.readouterr().out


def encoder_of(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {k: v for k, v in state.items() if "encoder" in k and isinstance(v, Tensor)}


def test_an_encoder_of_the_autoencoder_stays_as_it_is_if_it_is_frozen(
    runs: Path, tmp_path: Path
) -> None:
    trained = runs / "mae" / "ckpts" / "last.ckpt"
    options = ["--model.encoder_ckpt", str(trained), "--model.encoder.dropout", "0.2"]
    run("inpaint", "fit", tmp_path, *options, "--model.freeze_encoder", "true")
    ours, frozen = (encoder_of(x) for x in (trained, tmp_path / "inpaint" / "ckpts" / "last.ckpt"))
    assert frozen.keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in frozen.items())


def test_a_regression_starts_from_the_encoder_of_the_autoencoder(
    runs: Path, tmp_path: Path
) -> None:
    trained = runs / "mae" / "ckpts" / "last.ckpt"
    options = ["--model.encoder_ckpt", str(trained), "--model.optimizer.init_args.lr", "1e-6"]
    run("regress", "fit", tmp_path, *options)
    ours, tuned = (encoder_of(x) for x in (trained, tmp_path / "regress" / "ckpts" / "last.ckpt"))
    assert any(not torch.equal(value, ours[key]) for key, value in tuned.items())
    for key, value in tuned.items():
        torch.testing.assert_close(value, ours[key], rtol=0, atol=1e-4)
    run("regress", "test", tmp_path)  # without the file that it started from, if need be


def test_an_encoder_that_does_not_fit_is_one_clear_error(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = str(runs / "mae" / "ckpts" / "last.ckpt")
    options = ["--model.encoder_ckpt", trained, "--model.encoder.scaling.photon_scale", "5.0"]
    line = stopped(capsys, 1, "inpaint", "fit", tmp_path, *options)
    assert "another scaling of the sensors" in line


@pytest.mark.parametrize(
    ("task", "options", "code", "message"),
    [
        ("mae", ["--model.mask.ratoi", "0.5"], 2, "did you mean 'ratio'"),
        ("mae", ["--model.mask.ratio", "1.5"], 1, "ratio=1.5 must be at least 0 and below 1"),
        ("inpaint", ["--model.mask.face_ratios", "{outter: 0.1}"], 1, "face_ratios names"),
        ("inpaint", ["--model.freeze_encoder", "true"], 1, "needs the encoder_ckpt"),
        ("regress", ["--model.targets", "{}"], 1, "targets is empty"),
        ("regress", ["--data.batch_size", "0"], 1, "data.batch_size=0 must be at least 1"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    task: str,
    options: list[str],
    code: int,
    message: str,
    simulated_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in stopped(capsys, code, task, "fit", tmp_path, *options)
    assert not list(tmp_path.iterdir())


def test_a_run_opens_again_with_its_options(runs: Path) -> None:
    loaded = load_run(runs / "regress")
    assert loaded.module.net.encoder.options.dim == ENCODER["dim"]
    assert loaded.data.num_simulated == NUM_EVENTS
    batch = next(iter(loaded.test_batches()))
    table = pq.read_table(runs / "regress" / "eval" / "test" / "predictions.parquet")
    with torch.no_grad():
        columns = loaded.module.predictions(batch, loaded.module(batch))
    rows = len(batch.index)
    np.testing.assert_allclose(columns["energy"], table["energy"].to_numpy()[:rows], rtol=1e-4)
