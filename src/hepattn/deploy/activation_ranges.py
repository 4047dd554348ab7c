"""Measure the ranges of activations, and train a network to live with them."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from hepattn.deploy.int8 import activation_range
from hepattn.deploy.quantised_layers import (
    FakeQuantised,
    Inputs,
    Int8Static,
    replace_layers,
    to_int8_dynamic,
    watch_inputs,
)
from hepattn.nn.batch_norm import freeze_statistics
from hepattn.nn.moe import auxiliary_losses
from hepattn.training.module import sum_losses

RangeRule = Literal["minmax", "percentile"]
Ranges = dict[str, tuple[Tensor, Tensor]]  # scale and zero of a layer's input
MAX_VALUES = 1_000_000  # of which a percentile is taken; torch.quantile has a limit
TAIL = 1e-4


class RangeObserver:
    """The range of what one layer gets.

    ``minmax`` keeps the lowest and the highest value of all batches; ``percentile`` the mean over
    the batches of each one's 0.01 % and 99.99 % quantiles, which outliers do not widen.

    Args:
        rule: Which of both.

    Raises:
        ValueError: If the rule is unknown.
    """

    def __init__(self, rule: RangeRule = "minmax") -> None:
        if rule not in ("minmax", "percentile"):
            raise ValueError(f"range rule {rule!r} must be minmax or percentile")
        self.rule = rule
        self.bounds: list[Tensor] = []

    def update(self, x: Tensor) -> None:
        """Look at the values of a batch, any shape."""
        values = x.detach().float().flatten()
        if not len(values):
            return
        if self.rule == "minmax":
            self.bounds.append(torch.stack(values.aminmax()))
            return
        values = values[:: -(-len(values) // MAX_VALUES)]
        self.bounds.append(values.quantile(torch.tensor([TAIL, 1 - TAIL], device=x.device)))

    def range(self) -> tuple[Tensor, Tensor]:
        """Scale and zero, see `activation_range`.

        Raises:
            ValueError: If nothing was seen, or something that is not finite.
        """
        if not self.bounds:
            raise ValueError("a range needs at least one batch with a value; calibrate on more")
        low, high = torch.stack(self.bounds).unbind(1)
        if self.rule == "minmax":
            low, high = low.min(), high.max()
        else:
            low, high = low.mean(), high.mean()
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(f"a layer's input reaches from {low} to {high}; is the run healthy?")
        return activation_range(low, high)


def measure_ranges(
    network: nn.Module,
    names: Sequence[str],
    batches: Iterable[Inputs],
    rule: RangeRule = "minmax",
) -> Ranges:
    """Measure the ranges of the inputs of some layers.

    Args:
        network: The network, in evaluation mode.
        names: Names of the layers.
        batches: What the network is called with, of the training split.
        rule: How a range is made.

    Raises:
        ValueError: If there is no batch, or a layer saw nothing or something not finite.
    """
    observers = {name: RangeObserver(rule) for name in names}
    watch_inputs(network, names, batches, lambda name, x: observers[name].update(x))
    return {name: observer.range() for name, observer in observers.items()}


def make_static(network: nn.Module, ranges: Ranges) -> None:
    """Put integer layers of measured ranges into a network."""
    replace_layers(
        network, list(ranges), lambda name, layer: FakeQuantised(layer, *ranges[name]).convert()
    )


def make_dynamic(network: nn.Module, names: Sequence[str]) -> None:
    """Put integer layers that find their ranges themselves into a network."""
    replace_layers(network, names, lambda _, layer: to_int8_dynamic(layer))


def train_quantised(
    module: LightningModule,
    ranges: Ranges,
    batches: Iterable[Any],
    num_steps: int = 200,
    lr: float = 1e-4,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Fine-tune a network while it rounds as its integer form will, then convert it.

    The module's own losses on training batches, dropout on, AdamW with its rate falling linearly
    to zero, gradients clipped to norm 1. Statistics of batch norms stay as they are.

    Args:
        module: Module of a run; its network is changed, at the end into one of `Int8Static`.
        ranges: Ranges of the layers to train so.
        batches: Training batches; they are used again and again.
        num_steps: Optimiser steps.
        lr: First learning rate.
        watch: Called after each step with its number and its loss.

    Returns:
        The loss of each step.

    Raises:
        ValueError: If there are no batches.
    """
    network = module.net
    replace_layers(network, list(ranges), lambda name, layer: FakeQuantised(layer, *ranges[name]))
    _train_mode(module)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=num_steps)
    losses: list[float] = []
    for batch in itertools.islice(_repeat(batches), num_steps):
        optimizer.zero_grad()
        loss = sum_losses(module.losses(batch, module(batch)), auxiliary_losses(network))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay.step()
        losses.append(loss.item())
        watch(len(losses), losses[-1])
    module.eval()
    replace_layers(network, list(ranges), _converted)
    return losses


def _converted(_: str, layer: nn.Module) -> Int8Static:
    assert isinstance(layer, FakeQuantised)
    return layer.convert()


def _train_mode(module: nn.Module) -> None:
    module.train()
    freeze_statistics(module)


def _repeat(batches: Iterable[Any]) -> Iterable[Any]:
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise ValueError("there are no training batches; look at the data and its split")
