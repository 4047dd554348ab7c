import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from hepattn.training.schedules import (
    Attention,
    Constant,
    Cosine,
    FlatThenDecay,
    Linear,
    OneCycle,
    Plateau,
    Schedule,
    SqrtExp,
)


def optimizer(lr: float = 0.5) -> Optimizer:
    return SGD(nn.Linear(2, 2).parameters(), lr=lr)


def rates(schedule: Schedule, num_steps: int) -> list[float]:
    seen = []
    for _ in range(num_steps):
        seen.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return seen


def test_constant_rises_along_a_line_and_stays() -> None:
    seen = rates(Constant(optimizer(), 8, warmup_steps=4, min_lr=0.1), 8)
    assert seen == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_linear_falls_along_a_line_to_its_floor_at_the_last_step() -> None:
    seen = rates(Linear(optimizer(), 10, warmup_steps=2, min_lr=0.1), 10)
    expected = [0.3, 0.5] + [0.1 + 0.4 * (1 - (n - 2) / 8) for n in range(3, 11)]
    assert seen == pytest.approx(expected)
    assert seen[-1] == pytest.approx(0.1)


def test_cosine_follows_its_formula() -> None:
    seen = rates(Cosine(optimizer(), 12, warmup_steps=3, min_lr=0.1, max_lr=2.0), 12)
    expected = [0.1 + 1.9 * n / 3 for n in (1, 2)]
    expected += [0.1 + 1.9 * 0.5 * (1 + math.cos(math.pi * (n - 3) / 9)) for n in range(3, 13)]
    assert seen == pytest.approx(expected)


def test_flat_then_decay_falls_in_its_last_part_to_its_end() -> None:
    seen = rates(FlatThenDecay(optimizer(), 10), 10)
    assert seen == pytest.approx([0.5] * 7 + [0.5 * 0.01 ** (n / 3) for n in (1, 2, 3)])


@pytest.mark.parametrize("option", ["decay_fraction", "end_factor"])
def test_flat_then_decay_refuses_what_is_no_fraction(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=1.5 must be above 0 and at most 1"):
        FlatThenDecay(optimizer(), 10, **{option: 1.5})


def test_warmup_can_be_a_fraction_of_all_steps() -> None:
    by_fraction = rates(Cosine(optimizer(), 20, warmup_fraction=0.25), 20)
    assert by_fraction == rates(Cosine(optimizer(), 20, warmup_steps=5), 20)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_one_cycle_matches_torch(anneal: str) -> None:
    ours = OneCycle(
        optimizer(), 30, max_lr=1e-4, initial_lr=1e-5, end_lr=1e-6, warmup_fraction=0.2,
        anneal=anneal,
    )  # fmt: skip
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer(), max_lr=1e-4, total_steps=30, pct_start=0.2, div_factor=10,
        final_div_factor=10, anneal_strategy=anneal[:3] if anneal == "cosine" else "linear",
        cycle_momentum=False,
    )  # fmt: skip
    expected = []
    for _ in range(30):
        expected.append(reference.get_last_lr()[0])
        reference.optimizer.step()
        if len(expected) < 30:
            reference.step()
    assert rates(ours, 30) == pytest.approx(expected)


def test_one_cycle_ends_where_it_was_told_and_stays() -> None:
    seen = rates(OneCycle(optimizer(), 10, max_lr=1.0, initial_lr=0.2, end_lr=0.1), 14)
    assert seen[0] == pytest.approx(0.2)
    assert seen[9:] == pytest.approx([0.1] * 5)


def test_attention_follows_its_formula_from_the_first_step() -> None:
    seen = rates(Attention(optimizer(), 50, dim=64, warmup_steps=10, scale=2.0), 50)
    expected = [2 * 64**-0.5 * min(n**-0.5, n * 10**-1.5) for n in range(1, 51)]
    assert seen == pytest.approx(expected)
    assert max(seen) == seen[9]


def test_sqrt_exp_follows_its_formula_and_keeps_its_floor() -> None:
    seen = rates(SqrtExp(optimizer(), 50, amplitude=1.0, rate=0.1, min_lr=0.05), 50)
    expected = [max(math.sqrt(0.1 * n) * math.exp(-0.1 * n), 0.05) for n in range(1, 51)]
    assert seen == pytest.approx(expected)
    assert max(seen) == seen[4]  # n = 1 / (2 * 0.1)


def test_freeze_step_stops_the_formula() -> None:
    seen = rates(Linear(optimizer(), 10, freeze_step=4), 10)
    assert seen[4:] == [seen[3]] * 6


def test_epoch_factor_acts_at_once_and_once_an_epoch() -> None:
    schedule = Constant(optimizer(), 4, epoch_factor=0.5)
    first = rates(schedule, 2)
    schedule.end_epoch()
    assert first + rates(schedule, 2) == [0.5, 0.5, 0.25, 0.25]


def test_each_group_keeps_its_ratio_to_the_optimisers_rate() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": a.parameters()}, {"params": b.parameters(), "lr": 0.1}]
    schedule = Cosine(AdamW(groups, lr=1.0), 10, max_lr=4.0)
    assert schedule.get_last_lr()[1] == pytest.approx(0.1 * schedule.get_last_lr()[0])


def test_plateau_reduces_after_its_patience() -> None:
    schedule = Plateau(optimizer(1.0), 0, patience=1, factor=0.1)
    for metric in (1.0, 1.0, 1.0):
        schedule.step(metric)
    assert schedule.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert schedule.interval == "epoch"


@pytest.mark.parametrize("schedule", [Linear, Cosine, OneCycle])
def test_endless_training_is_refused_where_the_end_matters(schedule: type[Schedule]) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        schedule(optimizer(), math.inf)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Constant(optimizer(), 4, min_lr=1.0),
        lambda: Constant(optimizer(), 4, warmup_steps=1, warmup_fraction=0.1),
        lambda: Constant(optimizer(), 4, warmup_steps=-1),
        lambda: Constant(optimizer(), 4, epoch_factor=0),
        lambda: Constant(optimizer(), 4, freeze_step=0),
        lambda: OneCycle(optimizer(), 4, warmup_fraction=1.0),
        lambda: SqrtExp(optimizer(), 4, amplitude=0.0, rate=1.0),
        lambda: Attention(optimizer(), 4, dim=0, warmup_steps=1),
    ],
)
def test_options_out_of_range_are_refused(build: Callable[[], Schedule]) -> None:
    with pytest.raises(ValueError, match=r"must be|not both"):
        build()


def test_state_continues_the_schedule_and_leaves_the_options_to_the_config() -> None:
    old = Cosine(optimizer(), 10, epoch_factor=0.9)
    rates(old, 4)
    old.end_epoch()
    new = Cosine(optimizer(), 20, epoch_factor=0.9)
    new.load_state_dict(old.state_dict())
    assert new.num_steps == 20
    rates(new, 1)
    assert new.get_last_lr()[0] == pytest.approx(new.lr_at(6))
    assert all(isinstance(value, int | float | list) for value in old.state_dict().values())
