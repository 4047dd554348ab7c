"""Which parameters decay, and the switch that schedule-free optimisers need."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

OptimizerCallable = Callable[[Iterable], Optimizer]


def remember_dimensions(module: nn.Module) -> None:
    """Note how many dimensions each parameter has, before a strategy cuts it into flat shards.

    Args:
        module: Module to train.
    """
    for parameter in module.parameters():
        parameter.num_dimensions = parameter.ndim


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters into those with and without weight decay.

    No decay for norms, biases and scales, which have at most one dimension; for the parameters
    that a module names in its attribute ``no_weight_decay: tuple[str, ...]`` (positional
    parameters, register and class tokens); and for any parameter with the attribute
    ``no_weight_decay = True``.

    Args:
        module: Module to train.

    Returns:
        One or two groups for an optimiser; the second has ``weight_decay`` zero.

    Raises:
        ValueError: If no parameter can be trained, or a module names one that it lacks.
    """
    exempt = set()
    for owner in module.modules():
        for name in getattr(owner, "no_weight_decay", ()):
            if name not in owner._parameters:
                raise ValueError(
                    f"{type(owner).__name__}.no_weight_decay names {name!r}, "
                    f"which is none of its parameters {list(owner._parameters)}"
                )
            exempt.add(owner._parameters[name])
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{type(module).__name__} has no parameter to train")
    decays = [
        getattr(p, "num_dimensions", p.ndim) > 1
        and p not in exempt
        and not getattr(p, "no_weight_decay", False)
        for p in trainable
    ]
    decayed = [p for p, decay in zip(trainable, decays, strict=True) if decay]
    plain = [p for p, decay in zip(trainable, decays, strict=True) if not decay]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def switch_mode(optimizers: Iterable[Optimizer], *, training: bool) -> None:
    """Tell schedule-free optimisers to swap the weights of training and of evaluation.

    Args:
        optimizers: Optimisers, of which only those with ``train`` and ``eval`` react.
        training: Whether training continues; otherwise weights are evaluated or saved.
    """
    for optimizer in optimizers:
        switch = getattr(optimizer, "train" if training else "eval", None)
        if callable(switch):
            switch()
