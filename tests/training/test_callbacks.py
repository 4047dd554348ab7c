from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.encoder import Encoder
from hepattn.nn.scaling import ScaledNetwork
from hepattn.training.callbacks import (
    EMA,
    AttentionMaps,
    GradientNorm,
    NanGuard,
    PredictionWriter,
    ProcessMemory,
    RandomState,
    StartWeights,
    Throughput,
)
from training.toy import ToyBatch, ToyModule, toy

pytestmark = pytest.mark.usefixtures("in_tmp_path")
RUN = Path("runs/toy")
WRITER = "hepattn.training.callbacks.PredictionWriter"


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def weights(module: LightningModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_ema_validates_and_saves_the_ramped_average_from_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, by_step = [], {}
    monkeypatch.setattr(
        ToyModule, "on_train_batch_end", lambda self, *args: raw.append(weights(self))
    )
    monkeypatch.setattr(
        ToyModule,
        "update_metrics",
        lambda self, stage, *args: (
            by_step.setdefault(self.global_step, weights(self)) if stage == "val" else None
        ),
    )
    toy(
        "fit", "--config", "ema", "--trainer.max_epochs", "1", "--trainer.val_check_interval", "1",
        "--trainer.num_sanity_val_steps", "0",
    )  # fmt: skip
    validated = list(by_step.values())
    # the hook of the module runs before the callback's: the update of a step follows it
    average = raw[0]
    assert_close(validated[0], average)
    for n in range(1, 4):
        decay = min(0.999, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * raw[n]
        assert_close(validated[n], average)
    state = torch.load(RUN / "ckpts/last.ckpt", weights_only=True)
    saved = torch.cat([state["state_dict"][k].flatten() for k in state["current_model_state"]])
    current = torch.cat([v.flatten() for v in state["current_model_state"].values()])
    assert_close(saved, average)
    assert_close(current, raw[3])


def sanity_weights(monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[Tensor, Tensor]:
    """Weights of a module at the first validation batch with an average, and of the last one."""
    seen: list[Tensor] = []

    def remember(self: ToyModule, *args: Any) -> None:
        seen.append(self.net.layers[0].bias.clone())

    monkeypatch.setattr(ToyModule, "update_metrics", remember)
    options = ("--config", "ema", "--trainer.max_epochs", "1", *options)
    cli = toy("fit", "--run.name", "averaged", *options)
    return seen[0], cli.model.net.layers[0].bias.detach()


def test_ema_averages_what_the_module_learns_in_its_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    def setup(self: ToyModule, stage: str) -> None:
        with torch.no_grad():
            self.net.layers[0].bias.fill_(7.0)

    monkeypatch.setattr(ToyModule, "setup", setup)
    first, _ = sanity_weights(monkeypatch)
    assert_close(first, torch.full((4,), 7.0))


def test_ema_averages_from_the_weights_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    other = toy("fit", "--trainer.max_epochs", "1").model.net.layers[0].bias.detach()
    options = ("--run.weights", "runs/toy/ckpts/last.ckpt", "--model.optimizer.lr", "0.0")
    first, last = sanity_weights(monkeypatch, *options)
    assert_close(first, other)
    assert_close(last, other)


def test_ema_refuses_a_decay_that_never_moves() -> None:
    with pytest.raises(ValueError, match="decay=1"):
        EMA(decay=1.0)


def test_weights_to_start_from_come_without_their_calibration() -> None:
    class Calibrated(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = ScaledNetwork(torch.nn.Linear(3, 2), 2)

    class Fitting:
        ckpt_path = None

    other, module = Calibrated(), Calibrated()
    other.net.scaling.weight.fill_(2.0)
    other.net.scaling.bias.fill_(3.0)
    torch.save({"state_dict": other.state_dict()}, "other.ckpt")
    StartWeights("other.ckpt").on_fit_start(Fitting(), module)
    x = torch.randn(5, 3)
    assert_close(module.net(x), other.net.network(x), rtol=0, atol=0)


def test_nan_guard_saves_the_batch_of_errors_before_the_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses(self: ToyModule, batch: ToyBatch, outputs: Tensor) -> dict[str, Tensor]:
        if self.trainer.training:
            raise FloatingPointError("assignment problem 1 of 2 has the cost nan")
        return {"bce": outputs.mean()}

    monkeypatch.setattr(ToyModule, "losses", losses)
    with pytest.raises(SystemExit):
        toy("fit", "--config", "debug", "--trainer.detect_anomaly", "false")
    message = last_line(capsys)
    assert message.startswith("error: assignment problem 1 of 2 has the cost nan at step 0")
    assert torch.load(RUN / "nan_batch.pt", weights_only=True).keys() == set(ToyBatch._fields)


def test_nan_guard_names_and_saves_the_batch_and_spares_the_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        toy("fit", "--config", "debug", "--trainer.detect_anomaly", "false", "--data.poison", "3",
            "--trainer.num_sanity_val_steps", "0")  # fmt: skip
    message = last_line(capsys)
    assert stop.value.code == 1
    assert "the loss is nan at step" in message
    assert "103" in message
    batch = torch.load(RUN / "nan_batch.pt", weights_only=True)
    assert 103 in batch["event"].tolist()
    assert batch["hits"].isnan().any()


class IndexedBatch(NamedTuple):
    x: Tensor
    index: Tensor


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (IndexedBatch(torch.ones(2), torch.tensor([41, 17])), "batch 3, events [41, 17];"),
        ((torch.ones(2), torch.ones(2)), "batch 3;"),
    ],
)
def test_nan_guard_names_events_by_their_index_too(batch: Any, named: str) -> None:
    class Training:
        global_step, current_epoch, global_rank = 5, 0, 0
        fast_dev_run, default_root_dir = False, "."

    guard = NanGuard()
    guard.on_train_batch_start(Training(), None, batch, 3)
    with pytest.raises(FloatingPointError) as error:
        guard.on_before_backward(Training(), None, torch.tensor(float("nan")))
    assert named in str(error.value)


def test_nan_guard_names_the_parameter_of_a_bad_gradient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses(self: ToyModule, batch: ToyBatch, outputs: Tensor) -> dict[str, Tensor]:
        return {"root": (0 * self.net.layers[3].bias).sqrt().sum()}  # 0 * inf

    monkeypatch.setattr(ToyModule, "losses", losses)
    with pytest.raises(SystemExit):
        toy("fit", "--config", "debug", "--trainer.detect_anomaly", "false")
    assert "gradient of net.layers.3.bias is not finite" in last_line(capsys)


def test_throughput_counts_events_and_real_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(
        "hepattn.training.callbacks.throughput.time.perf_counter", lambda: float(next(clock))
    )
    cli = toy(
        "fit", "--trainer.callbacks+", "hepattn.training.callbacks.Throughput",
        "--trainer.callbacks.every_n_steps", "3", "--trainer.max_epochs", "1",
    )  # fmt: skip
    metrics = cli.trainer.callback_metrics
    assert metrics["throughput/events_per_second"] == pytest.approx(3 * 2 / 2)
    assert 3 * 3 * 2 / 2 <= metrics["throughput/tokens_per_second"] <= 3 * 5 * 2 / 2


def test_gradient_norm_is_the_norm_before_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watch(Callback):
        def on_before_optimizer_step(
            self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
        ) -> None:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            seen.append(torch.cat([g.flatten() for g in gradients]).norm())

    monkeypatch.setattr(ToyModule, "configure_callbacks", lambda self: [Watch(), GradientNorm()])
    cli = toy("fit", "--trainer.gradient_clip_val", "1e-6")
    assert_close(cli.trainer.callback_metrics["gradient/norm"], seen[-1])
    assert seen[-1] > 1e-4


def test_memory_of_the_process_is_logged_in_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyModule, "configure_callbacks", lambda self: [ProcessMemory()])
    logged = toy("fit", "--trainer.log_every_n_steps", "1").trainer.callback_metrics
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the reference is Linux's /proc")
    kilobytes = float(status.read_text().partition("VmRSS:")[2].split()[0])
    assert float(logged["memory/process"]) == pytest.approx(kilobytes * 1.024 / 1000, rel=0.2)


@pytest.mark.parametrize("callback", [NanGuard, Throughput])
def test_an_interval_of_zero_is_refused(callback: type) -> None:
    with pytest.raises(ValueError, match="every_n_steps=0"):
        callback(every_n_steps=0)


def test_random_states_are_plain_and_come_back() -> None:
    class Fitting:
        class state:  # noqa: N801
            fn = "fit"

        global_rank = 0

    checkpoint: dict[str, Any] = {}
    RandomState().on_save_checkpoint(None, None, checkpoint)
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.save(checkpoint, "state.pt")
    loaded = torch.load("state.pt", weights_only=True)
    RandomState().on_load_checkpoint(Fitting(), None, loaded)
    assert_close(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def expected_events() -> list[int]:
    return [100 + i for i in range(8) for _ in range(3 + i % 3)]


def test_predictions_are_written_in_the_order_of_the_input() -> None:
    toy("fit")
    cli = toy("predict")
    table = pq.read_table(RUN / "eval/predict/predictions.parquet")
    assert table["event"].to_pylist() == expected_events()
    model = cli.model.eval()
    with torch.no_grad():
        batches = [model.predict_step(b, 0)["score"] for b in cli.datamodule.predict_dataloader()]
    assert_close(torch.tensor(table["score"].to_numpy()), torch.cat(batches))
    assert not list((RUN / "eval" / "predict").glob("*.part"))


def test_a_test_writes_its_predictions_too() -> None:
    toy("fit")
    cli = toy("test")
    table = pq.read_table(RUN / "eval/test/predictions.parquet")
    valid = torch.cat([batch.valid.flatten() for batch in cli.datamodule.test_dataloader()])
    assert table.num_rows == valid.sum()


def test_every_prediction_gets_its_own_folder() -> None:
    toy("fit")
    toy("predict")
    first = (RUN / "eval/predict/predictions.parquet").read_bytes()
    toy("predict")
    assert (RUN / "eval/predict/predictions.parquet").read_bytes() == first
    assert (RUN / "eval/predict_2/predictions.parquet").is_file()


def test_predictions_go_to_hdf5_by_suffix_in_groups_of_rows() -> None:
    toy("fit")
    toy("predict", "--trainer.callbacks+", WRITER, "--trainer.callbacks.path", "out/scores.h5",
        "--trainer.callbacks.rows_per_group", "5")  # fmt: skip
    with h5py.File("out/scores.h5") as file:
        assert file["event"][:].tolist() == expected_events()
        assert file["score"].dtype == np.float32
    assert not (RUN / "eval").exists()


def test_predictions_at_a_given_path_are_never_overwritten_unasked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy("fit")
    to_file = ["--trainer.callbacks+", WRITER, "--trainer.callbacks.path", "scores.parquet"]
    toy("predict", *to_file)
    with pytest.raises(SystemExit) as stop:
        toy("predict", *to_file)
    assert stop.value.code == 1
    assert "exists already" in last_line(capsys)
    toy("predict", *to_file, "--trainer.callbacks.overwrite", "true")


def test_an_interrupted_prediction_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    toy("fit")

    def predict_step(self: ToyModule, batch: ToyBatch, batch_idx: int) -> dict[str, Tensor]:
        if batch_idx == 2:
            raise InterruptedError
        return {"event": batch.event}

    monkeypatch.setattr(ToyModule, "predict_step", predict_step)
    with pytest.raises(InterruptedError):
        toy("predict", "--trainer.callbacks+", WRITER, "--trainer.callbacks.rows_per_group", "1")
    assert list((RUN / "eval" / "predict").iterdir()) == []


@pytest.mark.parametrize(
    "output", [torch.ones(2), {}, {"a": torch.ones(2, 2)}, {"a": torch.ones(2), "b": torch.ones(3)}]
)
def test_predictions_that_are_no_columns_are_refused(
    output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyModule, "predict_step", lambda self, batch, batch_idx: output)
    with (
        pytest.raises(ValueError, match="predictions"),
        pytest.warns(UserWarning, match="untrained"),
    ):
        toy("predict", "--trainer.fast_dev_run", "1")


def test_bfloat16_scores_are_widened() -> None:
    writer = PredictionWriter("scores.parquet")

    class Rank:
        global_rank, world_size, fast_dev_run, default_root_dir = 1, 2, False, "."

    writer.on_predict_start(Rank(), None)
    writer.on_predict_batch_end(Rank(), None, {"score": torch.ones(2).bfloat16()}, None, 0)
    writer.on_predict_end(Rank(), None)
    table = pq.read_table("scores_rank1.parquet")  # every process writes its own file
    assert str(table["score"].type) == "float"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\.parquet"):
        PredictionWriter("scores.txt")


class Attending(LightningModule):
    """An encoder that is validated on batches of hits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(8, 2, AttentionOptions(2))

    def validation_step(self, batch: ToyBatch, batch_idx: int) -> None:
        self.encoder(batch.hits, batch.valid)


def validate_attending(callback: Callback) -> None:
    hits, valid = torch.randn(1, 5, 8), torch.ones(1, 5).bool()
    batches = [ToyBatch(hits, valid, valid.float(), torch.arange(1))] * 2
    trainer = Trainer(
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(Attending(), DataLoader(batches, batch_size=None), verbose=False)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_attention_maps_show_each_layer_of_the_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda self, image, **_: drawn.append(image))
    validate_attending(AttentionMaps())
    assert [image.shape for image in drawn] == [(5, 5), (5, 5)]
    for image in drawn:
        np.testing.assert_allclose(image.sum(1), 1.0, rtol=1e-5)
    assert Path("attention/step_0.png").stat().st_size > 0


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_attention_maps_of_chosen_layers_only() -> None:
    callback = AttentionMaps(layers="layers.1")
    seen = []
    callback.on_validation_batch_end = lambda *_: seen.append(list(callback._weights))
    validate_attending(callback)
    assert seen[0] == ["encoder.layers.1.attention"]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_attention_maps_of_long_events_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="no attention maps of 5 tokens: more than max_tokens=4"):
        validate_attending(AttentionMaps(max_tokens=4))
    assert not Path("attention").exists()
