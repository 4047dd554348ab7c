"""Losses of the package pytorch_optimizer for one answer an event."""

# B events

import inspect
import warnings
from typing import Any, Literal

import pytorch_optimizer
import torch
from pytorch_optimizer import get_supported_loss_functions
from torch import Tensor, nn

from hepattn.losses.event import EventLoss, Normalise, one_output, several_outputs


class OptimizerLoss(EventLoss):
    """A loss of the package pytorch_optimizer, by its name.

    Losses of single events fit; those that compare sums over many events or pixels (Dice, F1,
    Jaccard, Tversky) say nothing about one event and are refused. A loss that can only average is
    asked for each event alone, which is exact.

    Args:
        name: Name of the class, in upper or lower case.
        params: Its options by name.
        normalise: As in `EventLoss`.
        allow_negative_weights: As in `EventLoss`.

    Raises:
        ImportError: If pytorch_optimizer is not installed.
        ValueError: If there is no such loss, it does not fit, or an option is unknown, missing or
            decided here.
    """

    def __init__(
        self,
        name: str,
        params: dict[str, Any] | None = None,
        normalise: Normalise = "weights",
        allow_negative_weights: bool = False,
    ) -> None:
        super().__init__(normalise, allow_negative_weights)
        cls, self.wants = _find(name)
        params = params or {}
        accepted = inspect.signature(cls).parameters
        known = [option for option in accepted if option not in _DECIDED]
        if wrong := [option for option in params if option not in known]:
            raise ValueError(f"{cls.__name__} has no option {wrong} here, only {known}")
        needed = [option for option in known if accepted[option].default is inspect.Parameter.empty]
        if missing := [option for option in needed if option not in params]:
            raise ValueError(f"{cls.__name__} needs {missing}: give them in params")
        self.averages_only = "reduction" not in accepted
        self.loss = cls(**params) if self.averages_only else cls(**params, reduction="none")
        tempered = "BiTempered" in cls.__name__ and params["t1"] < 1
        self.bounded_below = tempered or cls.__name__ in _BOUNDED

    def per_event(self, logit: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of each event; arguments as in `EventLoss.per_event`."""
        if self.wants == "classes":
            several_outputs(logit, self)
        else:
            logit = one_output(logit, label, self).unsqueeze(1)  # (B, 1)
            label = label.to(logit.dtype).unsqueeze(1)  # (B, 1)
            if self.wants == "probability":
                logit = logit.sigmoid()
        if self.averages_only:
            with warnings.catch_warnings():  # a part of it loops over the events
                warnings.filterwarnings("ignore", ".*performance drop", UserWarning)
                return torch.vmap(self.loss)(logit.unsqueeze(1), label.unsqueeze(1))  # one by one
        return self.loss(logit, label).flatten()


_FITTING: dict[str, Literal["probability", "logit", "classes"]] = {
    "BCELoss": "probability",
    "BCEFocalLoss": "probability",
    "FocalLoss": "logit",
    "BinaryBiTemperedLogisticLoss": "logit",
    "LovaszHingeLoss": "logit",
    "BiTemperedLogisticLoss": "classes",
    "FocalCosineLoss": "classes",
    "LDAMLoss": "classes",
}
"""Losses of pytorch_optimizer that are losses of single events, and what they want to see."""
_BOUNDED = ("BCELoss", "BCEFocalLoss", "FocalCosineLoss")  # clamped, or of scaled scores
_DECIDED = ("reduction", "weight", "ignore_index", "per_image")  # weights of events decide these


def _find(name: str) -> tuple[type[nn.Module], Literal["probability", "logit", "classes"]]:
    for fitting, wants in _FITTING.items():
        if fitting.lower() == name.lower():
            return getattr(pytorch_optimizer, fitting), wants
    is_there = name.lower() in get_supported_loss_functions()
    problem = "compares sums over events, not single events" if is_there else "is not one of them"
    raise ValueError(
        f"name={name!r} must be a loss of pytorch_optimizer that fits, but {problem}: choose one "
        f"of {sorted(_FITTING)}"
    )
