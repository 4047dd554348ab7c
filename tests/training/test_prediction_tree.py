"""Predictions as a ROOT tree hold what the parquet file holds, entry by row."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uproot
from torch import Tensor

from hepattn.training.callbacks import PredictionWriter
from training.toy import ToyBatch, ToyModule, toy

pytestmark = pytest.mark.usefixtures("in_tmp_path")
WRITER = ("--trainer.callbacks+", "hepattn.training.callbacks.PredictionWriter")


class FakeTrainer:
    global_rank, world_size, fast_dev_run = 0, 1, False


def write(path: str, batches: Iterator[dict[str, Tensor]], rows_per_group: int = 500_000) -> None:
    writer = PredictionWriter(path, rows_per_group=rows_per_group)
    writer.on_predict_start(FakeTrainer(), None)
    for batch in batches:
        writer.on_predict_batch_end(FakeTrainer(), None, batch, None, 0)
    writer.on_predict_end(FakeTrainer(), None)


def draw(num_batches: int, size: int) -> Iterator[dict[str, Tensor]]:
    for number in range(num_batches):
        event = torch.arange(number * size, (number + 1) * size)
        yield {
            "event": event,
            "score_signal": torch.randn(size),
            "exact": torch.randn(size, dtype=torch.float64),
            "label": event.to(torch.int8),
            "is_signal": event % 3 == 0,
        }


def test_a_tree_has_the_values_and_types_of_the_parquet_file() -> None:
    batches = list(draw(3, 7))
    for path in ("scores.root", "scores.parquet"):
        write(path, iter(batches))
    table = pq.read_table("scores.parquet")
    with uproot.open("scores.root") as file:
        tree = file["predictions"]
        assert tree.keys() == table.column_names
        for name, values in tree.arrays(library="np").items():
            expected = table[name].to_numpy()
            assert values.dtype == expected.dtype
            np.testing.assert_array_equal(values, expected)


def test_a_long_tree_is_written_in_groups_of_rows_and_stays_in_order() -> None:
    write("scores.root", draw(60, 1000), rows_per_group=2500)
    with uproot.open("scores.root") as file:
        tree = file["predictions"]
        assert tree.num_entries == 60_000
        assert tree["event"].num_baskets == 20
        np.testing.assert_array_equal(tree["event"].array(library="np"), np.arange(60_000))


def test_batches_without_rows_are_no_entries() -> None:
    batches = list(draw(2, 4))
    empty = {name: values[:0] for name, values in batches[0].items()}
    write("scores.root", iter([empty, *batches, empty]), rows_per_group=1)
    with uproot.open("scores.root") as file:
        assert file["predictions"].num_entries == 8
    write("none.root", iter([empty]))
    with uproot.open("none.root") as file:
        assert file["predictions"].num_entries == 0


def test_half_precision_is_widened() -> None:
    write("scores.root", iter([{"half": torch.ones(2).half(), "brain": torch.ones(2).bfloat16()}]))
    with uproot.open("scores.root") as file:
        arrays = file["predictions"].arrays(library="np")
    assert {name: values.dtype for name, values in arrays.items()} == {
        "half": np.float32,
        "brain": np.float32,
    }


def test_a_column_that_no_branch_holds_is_named_and_leaves_no_file() -> None:
    with pytest.raises(ValueError, match=r"column 'name' of predictions has the type <U1"):
        write("scores.root", iter([{"name": np.array(["a", "b"])}]))
    assert not list(Path().iterdir())


def test_a_prediction_is_a_friend_of_its_input_and_never_overwritten_unasked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy("fit")
    to_file = [*WRITER, "--trainer.callbacks.path", "out/scores.root"]
    cli = toy("predict", *to_file)
    valid = torch.cat([batch.valid for batch in cli.datamodule.predict_dataloader()])
    with uproot.open("out/scores.root") as file:
        assert file["predictions"].num_entries == valid.sum()
    before = Path("out/scores.root").read_bytes()
    with pytest.raises(SystemExit):
        toy("predict", *to_file)
    assert "exists already" in capsys.readouterr().err
    assert Path("out/scores.root").read_bytes() == before
    toy("predict", *to_file, "--trainer.callbacks.overwrite", "true")


def test_an_interrupted_prediction_leaves_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    toy("fit")

    def predict_step(self: ToyModule, batch: ToyBatch, batch_idx: int) -> dict[str, Tensor]:
        if batch_idx == 2:
            assert Path("out/scores.root.part").exists()
            raise InterruptedError
        return {"event": batch.event}

    monkeypatch.setattr(ToyModule, "predict_step", predict_step)
    options = ["--trainer.callbacks.path", "out/scores.root"]
    options += ["--trainer.callbacks.rows_per_group", "1"]
    with pytest.raises(InterruptedError):
        toy("predict", *WRITER, *options)
    assert not list(Path("out").iterdir())
