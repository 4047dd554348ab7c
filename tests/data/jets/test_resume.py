"""A training that streams jets goes on in the middle of an epoch as if it had never stopped."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from data.jets.make_jets import draw_jets, write_lists
from hepattn.data.jets import JetBatch, JetInput, StreamingJets, StreamingLoader, open_jets
from hepattn.nn.normalise import Feature


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, int, list[int]]] = []

    def training_step(self, batch: JetBatch, number: int) -> Tensor:
        self.seen.append((self.current_epoch, number, batch.index.tolist()))
        return self.layer(batch.particles).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("steps", [2, 7, 9])  # within an epoch, at its end, within the next
def test_killed_training_sees_the_same_batches(tmp_path: Path, steps: int) -> None:
    source = open_jets(write_lists(tmp_path / "jets.parquet", draw_jets(53)))
    sizes = {"batch_size": 8, "chunk_size": 7, "buffer_size": 16}

    def train(max_steps: int, checkpoint: Path | None = None) -> Recorder:
        torch.manual_seed(0)
        module = Recorder()
        jets = StreamingJets(source, JetInput([Feature("part_pt_log")]), **sizes)
        saving = ModelCheckpoint(tmp_path / "ckpts", "{step}", every_n_train_steps=1, save_top_k=-1)
        options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = Trainer(
            max_epochs=2, max_steps=max_steps, callbacks=saving, accelerator="cpu", **options
        )
        trainer.fit(module, StreamingLoader(jets), ckpt_path=checkpoint, weights_only=True)
        return module

    first = train(steps)
    rest = train(-1, tmp_path / f"ckpts/step={steps}.ckpt")
    whole = train(-1)
    assert first.seen + rest.seen == whole.seen
    assert torch.equal(rest.layer.weight, whole.layer.weight)
