"""Weights that leave of some events what two earlier density ratios do not explain."""

# B events, M members

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hepattn.experiments.events.data import EventData
from hepattn.training.configs import ConfigError

Weighed = Literal["data", "simulation"]


@dataclass(frozen=True)
class Subtraction:
    """Runs that say which share of the data is not what is wanted, such as prompt leptons.

    Each was trained with data as numerator and the simulation of the unwanted part as denominator:
    its ratio r is data over simulation. What is wanted is data less simulation, which is 1 - 1 / r
    of an event of the data, or r - 1 of an event of the simulation; nothing where r is below one.

    Args:
        numerator: Run for the numerator of this ratio, such as the tight region.
        denominator: Run for its denominator, such as the loose region.
        of: Whether the classes of this ratio are events of the data or of the simulation.
        weight_clip_quantile: Quantile of these factors over the training events of a class, to
            which higher ones are cut; none by default. It matters for the simulation: factors of
            data are below one in any case.

    Raises:
        ValueError: If the quantile is not between 0 and 1.
    """

    numerator: str
    denominator: str
    of: Weighed = "data"
    weight_clip_quantile: float | None = None

    def __post_init__(self) -> None:
        quantile = self.weight_clip_quantile
        if quantile is not None and not 0 < quantile < 1:
            raise ValueError(f"weight_clip_quantile={quantile} must lie between 0 and 1")

    def check(
        self, run: str, theirs: EventData, share: float | None, ours: EventData, label: int
    ) -> None:
        """Refuse a run that cannot weigh the events of a class.

        Args:
            run: The run, as the message names it.
            theirs: Its data.
            share: The ``numerator_share`` of its loss.
            ours: Data of the ratio that is wanted.
            label: Number of the class there.

        Raises:
            ConfigError: If it is of other events, or no ratio of yields.
        """
        found, wanted = theirs.processes[self.of == "data"], ours.processes[label]
        if found != wanted:
            side = "numerator" if self.of == "data" else "denominator"
            raise ConfigError(
                f"model.subtraction: {run} has the {self.of} {found} as {side}, and must have "
                f"those that it weighs down, {wanted}; are the two runs swapped?"
            )
        selection = theirs.input.selection
        if not selection.includes(ours.input.selection):
            raise ConfigError(
                f"model.subtraction: {run} was trained on the events of {selection}, which are "
                f"not all of {ours.input.selection}; give a run that knows them"
            )
        weighting = theirs.weighting
        rescaled = weighting.class_weights or weighting.resampling or share
        if rescaled is not None or not weighting.use_weights:
            raise ConfigError(
                f"model.subtraction: {run} must be a ratio of yields, without class weights, "
                "resampling or numerator_share, and with the weights of the data"
            )


def kept_share(log_ratio: Tensor, of: Weighed) -> Tensor:
    """Share of data or of simulation that is data less simulation.

    Args:
        log_ratio: Logarithm of data over simulation, of any shape.
        of: Which of the two is weighed.

    Returns:
        Like ``log_ratio``; zero where there is more simulation than data, by a fluctuation.
    """
    share = -(-log_ratio).expm1() if of == "data" else log_ratio.expm1()
    return share.clamp(min=0)


def quantiles_of_kept(kept: Tensor, label: Tensor, quantile: float) -> Tensor:
    """Find a quantile of each class's shares, those of all members together.

    Args:
        kept: Shares of the events (B, M).
        label: 1 for the numerator, else 0 (B).
        quantile: Which, between 0 and 1.

    Returns:
        Of the denominator and of the numerator (2); infinite for a class without events.
    """
    most = torch.full((2,), torch.inf)
    for place in range(2):
        own = kept[label == place].flatten().sort().values
        if len(own):  # torch.quantile is for few numbers alone
            most[place] = own[round(quantile * (len(own) - 1))]
    return most
