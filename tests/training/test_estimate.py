"""What a training takes is what its first steps take, times their number."""

import json
from pathlib import Path
from typing import Any

import pytest

from hepattn.training.callbacks import Estimate
from hepattn.training.estimate import _hours as hours
from hepattn.training.estimate import estimate, main
from training.toy import toy

FOUND = {
    "batches_per_epoch": 100,
    "validation_batches": 10,
    "epochs": 3,
    "max_steps": -1,
    "seconds_per_step": [0.1, 0.2, 9.0],
    "seconds_per_validation_batch": [1.0],
}


def test_a_whole_training_is_its_steps_and_validations() -> None:
    assert hours(FOUND) == pytest.approx(3 * (100 * 0.2 + 10) / 3600)
    assert hours(FOUND | {"max_steps": 150}) == pytest.approx(1.5 * (100 * 0.2 + 10) / 3600)
    assert hours(FOUND | {"epochs": None, "max_steps": 150}) == hours(FOUND | {"max_steps": 150})
    assert hours(FOUND | {"epochs": -1}) is None
    assert hours(FOUND | {"seconds_per_validation_batch": []}) == pytest.approx(60 / 3600)


def measure(file: Path, *options: str) -> dict[str, Any]:
    callback = ["--trainer.callbacks+", "hepattn.training.callbacks.Estimate"]
    numbers = {"file": file, "num_steps": 2, "warmup": 1}
    callback += [f"--trainer.callbacks.{name}={value}" for name, value in numbers.items()]
    toy("fit", *callback, *options)
    return json.loads(file.read_text())


def test_memory_is_that_of_the_tensors(in_tmp_path: Path) -> None:
    small = measure(in_tmp_path / "a.json", "--run.name", "a")
    large = measure(in_tmp_path / "b.json", "--run.name", "b", "--data.batch_size", "4")
    num = small["parameters"]
    assert small["weights_bytes"] == small["gradients_bytes"] == 4 * num
    assert (
        2 * 4 * num < small["optimizer_bytes"] < 2 * 4 * num + 100
    )  # moments, and numbers of steps
    assert large["activations_bytes"] == pytest.approx(2 * small["activations_bytes"], rel=0.1)
    assert len(small["seconds_per_step"]) == 2
    assert (small["batches_per_epoch"], large["batches_per_epoch"]) == (4, 2)
    assert small["peak_bytes"] > 1e8


@pytest.mark.slow
@pytest.mark.usefixtures("in_tmp_path")
def test_the_tool_says_what_an_experiment_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPATTN_CACHE", "cache")
    options = ["--data.num_simulated", "400", "--data.batch_size", "16"]
    main(["events/classify", "--json", "found.json", "--steps", "3", *options])
    found = json.loads(Path("found.json").read_text())
    assert 10 < found["batches_per_epoch"] < 25
    assert found["epochs"] == 5
    assert found["hours"] == hours(found)
    assert f"{found['parameters']:,}" in capsys.readouterr().out
    assert {file.name for file in Path().iterdir()} == {"cache", "found.json"}
    with pytest.raises(SystemExit):
        main(["events/classify", "--json", "found.json", *options])


def test_what_stops_a_training_stops_the_estimate() -> None:
    with pytest.raises(RuntimeError, match="is no experiment"):
        estimate("no/experiment", [])


def test_an_estimate_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps=0 must be positive"):
        Estimate("x.json", num_steps=0)
