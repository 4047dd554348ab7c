import copy
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, ReduceLROnPlateau, StepLR
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset

from hepattn.nn.moe import MixtureOfExperts
from hepattn.training.module import BaseModule, sum_losses
from hepattn.training.optimizer import parameter_groups
from hepattn.training.schedules import Constant, Cosine, Other, Plateau
from training.toy import ToyModule, toy


class Batch(NamedTuple):
    x: Tensor
    valid: Tensor


class Tokens(nn.Module):
    no_weight_decay = ("position", "register")

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(5, 3))
        self.register = nn.Parameter(torch.zeros(2, 3))
        self.scale = nn.Parameter(torch.ones(3))
        self.marked = nn.Parameter(torch.ones(3, 3))
        self.marked.no_weight_decay = True
        self.dense = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


class Mean(BaseModule):
    """Two losses whose gradients are known."""

    def forward(self, batch: Batch) -> Tensor:
        return self.net(batch.x)

    def losses(self, batch: Batch, outputs: Tensor) -> dict[str, Tensor]:
        return {"one": outputs.mean(), "two": 2 * outputs.mean()}

    def update_metrics(self, stage: str, batch: Batch, outputs: Tensor) -> None:
        assert not outputs.requires_grad
        self.calls.append(f"update {stage}")

    def log_metrics(self, stage: str) -> None:
        self.calls.append(f"log {stage}")


def sgd(parameters: Any) -> Optimizer:
    return SGD(parameters, lr=0.1)


def fit(
    module: BaseModule, max_epochs: int = 1, sizes: tuple[int, ...] = (2, 2), **options: Any
) -> Trainer:
    module.calls = []
    batches = [Batch(torch.ones(size, 4, 3), torch.ones(size, 4).bool()) for size in sizes]
    loader = DataLoader(batches, batch_size=None)
    trainer = Trainer(
        max_epochs=max_epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    return trainer


def test_what_layers_add_to_the_loss_is_trained_and_logged_by_name() -> None:
    torch.manual_seed(0)
    module = Mean(MixtureOfExperts(3, num_experts=2, top_k=1, weight=10.0), sgd)
    trainer = fit(module)
    logged = trainer.callback_metrics
    assert logged["train/load_balance"] >= 10.0
    terms = [logged[f"train/{name}"] for name in ("one", "two", "load_balance")]
    assert_close(logged["train/loss"], sum(terms))
    assert "val/load_balance" not in logged


def test_only_matrices_that_are_no_tokens_decay() -> None:
    net = Tokens()
    decayed, plain = parameter_groups(net)
    assert [p is net.dense.weight for p in decayed["params"]] == [True]
    assert plain["weight_decay"] == 0
    exempt = {"position", "register", "scale", "marked", "dense.bias", "norm.weight", "norm.bias"}
    names = {id(p): name for name, p in net.named_parameters()}
    assert {names[id(p)] for p in plain["params"]} == exempt


def test_a_misspelt_mark_is_refused() -> None:
    net = nn.Linear(2, 2)
    net.no_weight_decay = ("wieght",)
    with pytest.raises(ValueError, match="wieght"):
        parameter_groups(net)


def test_a_module_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False))


def test_one_kind_of_parameters_makes_one_group() -> None:
    assert len(parameter_groups(nn.LayerNorm(3))) == 1


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize("place", ["file", "command line"])
def test_a_switch_of_class_leaves_the_options_of_the_old_one_behind(place: str) -> None:
    sgd_config = "{class_path: torch.optim.SGD, init_args: {lr: 0.1}}"
    Path("sgd.yaml").write_text(f"model:\n  optimizer: {sgd_config}\n")
    options = {
        "file": ("--config", "sgd.yaml"),
        "command line": ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"),
    }
    cli = toy("fit", "--trainer.fast_dev_run", "1", *options[place])
    optimizer = cli.trainer.optimizers[0]
    assert type(optimizer) is SGD
    assert optimizer.defaults["lr"] == 0.1
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0]


@pytest.mark.usefixtures("in_tmp_path")
def test_options_of_the_same_class_merge() -> None:
    Path("lr.yaml").write_text("model:\n  optimizer: {init_args: {lr: 0.2}}\n")
    Path("adam.yaml").write_text("model:\n  optimizer: {class_path: torch.optim.AdamW}\n")
    options = ("--config", "lr", "--config", "adam", "--model.optimizer", "AdamW")
    cli = toy("fit", "--trainer.fast_dev_run", "1", *options)
    assert cli.trainer.optimizers[0].defaults["lr"] == 0.2
    assert cli.trainer.optimizers[0].defaults["weight_decay"] == 0.3


def test_losses_are_summed_and_logged_by_name() -> None:
    module = Mean(nn.Linear(3, 1), sgd)
    metrics = fit(module).callback_metrics
    assert metrics["train/loss"] == pytest.approx(float(metrics["train/one"]) * 3)
    assert metrics["val/two"] == pytest.approx(float(metrics["val/one"]) * 2)


def test_validation_averages_over_events_rather_than_batches() -> None:
    class Size(Mean):
        def losses(self, batch: Batch, outputs: Tensor) -> dict[str, Tensor]:
            return {"size": 0 * outputs.mean() + len(batch.x)}

    metrics = fit(Size(nn.Linear(3, 1), sgd), sizes=(1, 3)).callback_metrics
    assert metrics["val/size"] == pytest.approx((1 * 1 + 3 * 3) / 4)


def test_metrics_are_updated_every_batch_and_logged_every_epoch() -> None:
    module = Mean(nn.Linear(3, 1), sgd)
    fit(module)
    val = ["update val", "update val", "log val"]
    assert module.calls == ["update train", "update train", *val, "log train"]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least one"),
        (None, "at least one"),
        (torch.ones(()), "at least one"),
        ({"bce": torch.ones(3)}, r"'bce'.*shape \(3,\)"),
        ({"bce": 1.0}, "'bce'.*float"),
        ({"bce": torch.ones((), dtype=torch.long)}, "'bce'"),
        ({"loss": torch.ones(())}, "rename"),
    ],
)
def test_wrong_losses_are_refused(terms: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sum_losses(terms, {})
    with pytest.raises(ValueError, match="'load_balance', which layers add"):
        sum_losses({"load_balance": torch.ones(())}, {"load_balance": torch.ones(())})


def test_the_schedule_knows_the_steps_of_the_optimiser() -> None:
    module = Mean(nn.Linear(3, 1), sgd, Cosine)
    trainer = fit(module, max_epochs=3, accumulate_grad_batches=2)
    schedule = trainer.lr_scheduler_configs[0].scheduler
    assert schedule.num_steps == 3
    assert schedule.last_epoch == 3


@pytest.mark.parametrize("num_batches", [1, 2, 3, 4, 5, 6, 7])
def test_batches_left_over_at_the_end_of_an_epoch_count_as_all_others(num_batches: int) -> None:
    class Square(Mean):
        def losses(self, batch: Batch, outputs: Tensor) -> dict[str, Tensor]:
            return {"square": (outputs.mean() - len(batch.x)).square()}

    module = Square(nn.Linear(3, 1), sgd)
    by_hand = copy.deepcopy(module.net)
    sizes = tuple(range(1, num_batches + 1))
    losses = []
    for start in [*range(0, num_batches, 3)] * 2:  # two epochs
        group = sizes[start : start + 3]
        terms = torch.stack([(by_hand(torch.ones(1, 3)).mean() - size).square() for size in group])
        gradients = torch.autograd.grad(terms.mean(), list(by_hand.parameters()))
        losses += terms.tolist()
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    trainer = fit(module, max_epochs=2, sizes=sizes, accumulate_grad_batches=3)
    assert trainer.global_step == 2 * -(-num_batches // 3)
    for ours, expected in zip(module.net.parameters(), by_hand.parameters(), strict=True):
        assert_close(ours, expected)
    assert trainer.callback_metrics["train/square"].item() == pytest.approx(losses[-1], rel=1e-4)


def test_an_epoch_of_unknown_length_has_no_known_rest() -> None:
    class Stream(IterableDataset[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            return iter([Batch(torch.ones(2, 4, 3), torch.ones(2, 4).bool())] * 3)

    module = Mean(nn.Linear(3, 1), sgd)
    module.calls = []
    before = module.net.weight.detach().clone()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accumulate_grad_batches=2,
        num_sanity_val_steps=0,
    )  # fmt: skip
    loader = DataLoader(Stream(), batch_size=None)
    trainer.fit(module, loader, loader)
    assert trainer.num_training_batches == math.inf
    # the gradient of both losses is 3: a whole step, and one of a half
    assert_close(module.net.weight, before - 0.1 * 3 * (1 + 0.5))


def test_training_in_half_precision_reaches_the_loss_of_single_precision() -> None:
    class Regression(Mean):
        def losses(self, batch: Batch, outputs: Tensor) -> dict[str, Tensor]:
            truth = batch.x[..., :2].square().sum(-1)
            noise = 0.3 * torch.sin(1e4 * batch.x[..., 2])  # nobody learns that
            return {"mse": (outputs.float().squeeze(-1) - truth - noise).square().mean()}

    draw = torch.rand((32, 1, 64, 3), generator=torch.Generator().manual_seed(1))
    batches = [Batch(x, torch.ones(1, 64).bool()) for x in draw]
    loader = DataLoader(batches, batch_size=None)
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, 1))
        module = Regression(net, lambda groups: torch.optim.Adam(groups, lr=0.02), Cosine)
        module.calls = []
        trainer = Trainer(
            max_epochs=10, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, precision=precision,
            num_sanity_val_steps=0, check_val_every_n_epoch=10,
        )  # fmt: skip
        trainer.fit(module, loader, loader)
        losses.append(trainer.callback_metrics["val/mse"].item())
    assert losses[0] < 1.2 * 0.3**2 / 2  # the noise's variance
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_an_endless_training_without_schedule_end_is_refused() -> None:
    module = Mean(nn.Linear(3, 1), sgd, Cosine)
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        fit(module, max_epochs=-1)


def test_the_factor_per_epoch_follows_the_epochs() -> None:
    def schedule(optimizer: Optimizer, num_steps: int) -> Constant:
        return Constant(optimizer, num_steps, epoch_factor=0.5)

    trainer = fit(Mean(nn.Linear(3, 1), sgd, schedule), max_epochs=3)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_plateau_steps_once_an_epoch_on_its_metric() -> None:
    def schedule(optimizer: Optimizer, num_steps: int) -> Plateau:
        return Plateau(optimizer, num_steps, monitor="val/loss", mode="max", patience=0)

    trainer = fit(Mean(nn.Linear(3, 1), sgd, schedule), max_epochs=3)  # the loss falls forever
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**2)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_schedule_of_torch_steps_at_its_interval(interval: str) -> None:
    def schedule(optimizer: Optimizer, num_steps: int) -> LRScheduler:
        def halve(optimizer: Optimizer) -> ExponentialLR:
            return ExponentialLR(optimizer, 0.5)

        return Other(optimizer, num_steps, schedule=halve, interval=interval)

    trainer = fit(Mean(nn.Linear(3, 1), sgd, schedule), max_epochs=2)
    num = trainer.global_step if interval == "step" else 2
    assert num > 2 or interval == "epoch"
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**num)


def test_a_plateau_of_torch_looks_at_its_metric() -> None:
    def schedule(optimizer: Optimizer, num_steps: int) -> LRScheduler:
        def build(optimizer: Optimizer) -> ReduceLROnPlateau:
            return ReduceLROnPlateau(optimizer, "max", patience=0)

        return Other(optimizer, num_steps, schedule=build, monitor="val/one")

    trainer = fit(Mean(nn.Linear(3, 1), sgd, schedule), max_epochs=3)  # the loss falls forever
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**2)


def test_a_schedule_of_torch_that_would_take_the_number_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"StepLR knows no number of steps: .*schedules\.Other"):
        fit(Mean(nn.Linear(3, 1), sgd, StepLR), max_epochs=1)


def test_options_of_other_schedules_without_effect_are_refused() -> None:
    optimizer = sgd(nn.Linear(3, 1).parameters())
    with pytest.raises(ValueError, match="monitor=val/auc has no effect: ExponentialLR"):
        Other(optimizer, 1, schedule=lambda o: ExponentialLR(o, 0.5), monitor="val/auc")
    with pytest.raises(ValueError, match="interval=step must be epoch: ReduceLROnPlateau"):
        Other(optimizer, 1, schedule=ReduceLROnPlateau, interval="step")
    assert Other(optimizer, 1, schedule=ReduceLROnPlateau).monitor == "val/loss"


def test_compiling_keeps_the_keys_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    plain, fast = Mean(nn.Linear(3, 1), sgd), Mean(nn.Linear(3, 1), sgd, compile=True)
    assert compiled == [fast.net]
    assert plain.state_dict().keys() == fast.state_dict().keys()


def test_a_compiled_network_trains_as_the_plain_one() -> None:
    plain = Mean(nn.Linear(3, 1), sgd)
    fast = copy.deepcopy(plain)
    fast.net.compile(backend="eager")
    fit(plain)
    fit(fast)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    assert_close(fast.net.weight, plain.net.weight)


class ScheduleFree(SGD):
    """Counts the switches of a schedule-free optimiser."""

    def train(self) -> None:
        self.training = True

    def eval(self) -> None:
        self.training = False


def test_schedule_free_optimisers_train_and_evaluate_in_their_modes() -> None:
    seen = {"train": set(), "val": set()}

    class Watched(Mean):
        def update_metrics(self, stage: str, batch: Batch, outputs: Tensor) -> None:
            seen[stage].add(self.trainer.optimizers[0].training)

    module = Watched(nn.Linear(3, 1), lambda p: ScheduleFree(p, lr=0.1))
    trainer = fit(module, max_epochs=2)
    assert seen == {"train": {True}, "val": {False}}
    assert trainer.optimizers[0].training is False  # what a checkpoint at the end sees


def test_a_module_without_losses_says_so() -> None:
    with pytest.raises(NotImplementedError, match="losses"):
        fit(BaseModule(Identity(), sgd))


class Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: Batch) -> Tensor:
        return batch.x * self.weight


def test_signatures_hold_no_default_optimiser() -> None:
    for module in (BaseModule, ToyModule):
        assert inspect.signature(module).parameters["optimizer"].default is inspect.Parameter.empty
