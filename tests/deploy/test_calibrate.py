"""A run is calibrated into a checkpoint that predicts as any other."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from deploy.tiny import TinyData
from deploy.tiny_events import OVERCONFIDENCE, TinyEvents, tiny_events
from hepattn.data.error import DataError
from hepattn.deploy.calibrate import main
from hepattn.training.load import load_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    tiny_events("fit", str(root), "--data.num_events", "40", "--data.batch_size", "200")
    return root / "events"


@pytest.fixture(scope="module")
def calibrated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("calibrated") / "events"
    shutil.copytree(trained, run)
    main([str(run)])
    return run


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "events")


def report(run: Path) -> dict:
    return json.loads((run / "eval" / "calibration" / "metrics.json").read_text())


def test_the_report_tells_what_was_fitted_and_what_it_brought(calibrated: Path) -> None:
    content = report(calibrated)
    assert content["scaling"]["temperature"] == pytest.approx(OVERCONFIDENCE, rel=0.1)
    assert content["converged"]
    before, after = content["calib"]["before"], content["calib"]["after"]
    assert after["loss"] < before["loss"]
    assert after["error"] < before["error"] / 5
    assert after["accuracy"] == before["accuracy"]
    assert after["num_events"] == 4000
    assert content["test"]["before"]["num_events"] == 40
    assert (calibrated / "eval" / "calibration" / "reliability.png").stat().st_size > 1000


def test_a_calibrated_checkpoint_opens_strictly_and_scales_the_logits(calibrated: Path) -> None:
    before = load_run(calibrated).module
    path = calibrated / "ckpts" / "best_calibrated.ckpt"
    after = load_run(calibrated, path).module
    inputs = before.network_inputs(next(iter(TinyEvents().test_dataloader())))
    temperature = report(calibrated)["scaling"]["temperature"]
    assert_close(after.net(*inputs), before.net(*inputs) / temperature)
    assert "optimizer_states" not in torch.load(path, weights_only=True)


def test_a_calibrated_checkpoint_predicts_through_the_command_line(calibrated: Path) -> None:
    path = calibrated / "ckpts" / "best_calibrated.ckpt"
    options = ["--data.num_events", "12", "--ckpt_path", str(path)]
    tiny_events("predict", str(calibrated.parent), *options)
    table = pq.read_table(calibrated / "eval" / "predict" / "predictions.parquet")
    module = load_run(calibrated, path).module
    batches = TinyEvents(num_events=12, batch_size=200).predict_dataloader()
    expected = torch.cat([module(batch).sigmoid()[:, 0] for batch in batches]).detach()
    assert_close(torch.from_numpy(table["score"].to_numpy().copy()), expected)


def test_calibrating_again_begins_anew(calibrated: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.ckpt"
    first = calibrated / "ckpts" / "best_calibrated.ckpt"
    main([str(calibrated), "--checkpoint", str(first), "--output", str(again)])
    weights = [load_run(calibrated, path).module.net.scaling.weight for path in (first, again)]
    assert_close(weights[0], weights[1])


def test_a_fit_that_is_stopped_early_warns_and_unlabelled_events_are_not_judged(
    copied: Path,
) -> None:
    options = ["--method", "vector", "--weights", "none", "--max_iter", "1"]
    with pytest.warns(UserWarning, match="did not reach its minimum in 1 steps"):
        main([str(copied), *options, "--checkpoint", "last", "--data.labelled", "false"])
    assert (copied / "ckpts" / "last_calibrated.ckpt").exists()
    content = report(copied)
    assert "test" not in content
    assert content["options"]["method"] == "vector"
    assert len(content["scaling"]["bias"]) == 1


def test_without_test_events_the_report_is_of_the_calibration_split_alone(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: TinyEvents) -> None:
        raise DataError("part test: found none of the events")

    monkeypatch.setattr(TinyEvents, "test_dataloader", none)
    with pytest.warns(UserWarning, match="calibration split alone: part test: found none"):
        main([str(copied)])
    assert "test" not in report(copied)
    assert report(copied)["calib"]["after"]["num_events"] == 4000


def assert_fails(capsys: pytest.CaptureFixture, message: str, *args: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 1
    assert line.startswith("error:")
    assert message in line


def test_nothing_is_overwritten(calibrated: Path, capsys: pytest.CaptureFixture) -> None:
    assert_fails(capsys, "exists; choose another --output", str(calibrated))


def test_a_matrix_needs_more_than_two_classes(copied: Path, capsys: pytest.CaptureFixture) -> None:
    assert_fails(capsys, "needs more than two classes", str(copied), "--method", "matrix")
    assert not list(copied.glob("ckpts/*calibrated*"))
    assert not (copied / "eval").exists()


def test_data_without_a_calibration_split_is_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delattr(TinyEvents, "calib_dataloader")
    assert_fails(capsys, "TinyEvents has no calibration split", str(copied))


def test_a_network_without_a_scaling_is_refused(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(TinyData, "calib_dataloader", TinyData.test_dataloader, raising=False)
    assert_fails(capsys, "give it a ScaledNetwork", str(tiny_run))
