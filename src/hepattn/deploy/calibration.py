"""Fit the scaling that makes a classifier's probabilities what they say."""

# J events, O outputs

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from hepattn.nn.scaling import class_logits
from hepattn.training.configs import ConfigError

Method = Literal["temperature", "vector", "matrix"]
Optimizer = Literal["lbfgs_line_search", "lbfgs"]
CONVERGED = 1e-4  # largest gradient of the loss by a parameter
ROUNDING = 1e-9


class Scored(NamedTuple):
    """What a network says of labelled events.

    Attributes:
        logit: Logits before any scaling (J, O).
        label: Number of the true class (J).
        weight: Weight of each event (J).
    """

    logit: Tensor
    label: Tensor
    weight: Tensor


class Scaling(NamedTuple):
    """A fitted map ``W z + b`` of logits z, in float64.

    Attributes:
        weight: W (O, O).
        bias: b (O).
        steps: Number of steps that the optimiser took, of each fit.
        gradient: Largest gradient that was left, of all fits.
    """

    weight: Tensor
    bias: Tensor
    steps: tuple[int, ...] = ()
    gradient: float = 0.0

    def apply(self, logit: Tensor) -> Tensor:
        """Rescale logits (J, O), in float64."""
        return logit.double() @ self.weight.T + self.bias

    @property
    def converged(self) -> bool:
        """Whether every fit found its minimum."""
        return self.gradient <= CONVERGED


@dataclass(frozen=True)
class CalibrationOptions:
    """How logits z are calibrated (arXiv:1706.04599).

    Args:
        method: ``temperature`` z / T, ``vector`` w z + b for each logit (of two classes, Platt's),
            or ``matrix`` W z + b.
        optimizer: L-BFGS with a strong-Wolfe line search, or without.
        lr: Its learning rate: length of the first step, which the line search then stretches.
        max_iter: Most steps.
        fit_all: Whether one fit sees all events; else each batch has its own and parameters (of the
            temperature its logarithm) are averaged by the batches' numbers of events.
        set_temperature: Temperature to set instead of fitting it.

    Raises:
        ConfigError: If an option is unknown, out of range or without effect.
    """

    method: Method = "temperature"
    optimizer: Optimizer = "lbfgs_line_search"
    lr: float = 1.0
    max_iter: int = 200
    fit_all: bool = True
    set_temperature: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("method", Method), ("optimizer", Optimizer)):
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(allowed))}"
                )
        if not self.lr > 0 or self.max_iter < 1:
            raise ConfigError(f"lr={self.lr} must be positive and max_iter={self.max_iter} too")
        if self.set_temperature is None:
            return
        if self.method != "temperature" or not self.set_temperature > 0:
            raise ConfigError(
                f"set_temperature={self.set_temperature} must be positive, and only "
                f"method=temperature has one, not {self.method}"
            )


def mean_loss(scored: Scored) -> Tensor:
    """Weighted mean of −ln p of the true class, in float64; weights of either sign."""
    weight = scored.weight.double()
    loss = F.cross_entropy(class_logits(scored.logit.double()), scored.label, reduction="none")
    return (loss * weight).sum() / weight.sum()


def join(batches: Sequence[Scored]) -> Scored:
    """All events of some batches in one."""
    return Scored(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def fit_scaling(batches: Sequence[Scored], options: CalibrationOptions) -> Scaling:
    """Fit the scaling that minimises the loss of held-out events.

    Args:
        batches: What the network says of them.
        options: How.

    Raises:
        ConfigError: If there are no events or their weights sum to nothing, if a matrix is wanted
            for one output, or if the fit would raise the loss.
    """
    if not sum(len(batch.label) for batch in batches):
        raise ConfigError("there are no labelled events to calibrate on; give the split a share")
    num_outputs = batches[0].logit.shape[1]
    if num_outputs == 1 and options.method == "matrix":
        raise ConfigError("method=matrix needs more than two classes; take vector (Platt scaling)")
    everything = join(batches)
    if not everything.weight.sum() > 0:
        raise ConfigError("the weights of the events to calibrate on sum to nothing; give others")
    if options.set_temperature is not None:
        log_temperature = torch.tensor(options.set_temperature, dtype=torch.float64).log()
        return Scaling(*_temperature_map(num_outputs)(log_temperature.view(1)))
    parts = [everything] if options.fit_all else [b for b in batches if b.weight.sum() > 0]
    fitted = _fit_each(parts, num_outputs, options)
    before = mean_loss(everything)
    after = mean_loss(everything._replace(logit=fitted.apply(everything.logit)))
    if not after <= before + ROUNDING:
        raise ConfigError(
            f"the fit would raise the loss from {before:.6g} to {after:.6g}; take "
            "optimizer=lbfgs_line_search and fit_all=true, a simpler method, or weights that are "
            "not negative"
        )
    return fitted


Map = Callable[[Tensor], tuple[Tensor, Tensor]]  # parameters to weight (O, O) and bias (O)


def _temperature_map(num_outputs: int) -> Map:
    eye = torch.eye(num_outputs, dtype=torch.float64)
    return lambda tau: (eye * (-tau).exp(), eye.new_zeros(num_outputs))


def _method(method: Method, num_outputs: int) -> tuple[Tensor, Map]:
    """Parameters to begin with, those of the identity, and what they mean."""
    eye = torch.eye(num_outputs, dtype=torch.float64)
    if method == "temperature":
        return eye.new_zeros(1), _temperature_map(num_outputs)
    if method == "vector":
        start = torch.cat([eye.new_ones(num_outputs), eye.new_zeros(num_outputs)])
        return start, lambda p: (p[:num_outputs].diag(), p[num_outputs:])
    start = torch.cat([eye.flatten(), eye.new_zeros(num_outputs)])
    return start, lambda p: (p[:-num_outputs].view(num_outputs, num_outputs), p[-num_outputs:])


def _fit_each(parts: Sequence[Scored], num_outputs: int, options: CalibrationOptions) -> Scaling:
    """Fit each part and average the parameters by numbers of events."""
    start, meaning = _method(options.method, num_outputs)
    fits = [_fit(part, start, meaning, options) for part in parts]
    share = torch.tensor([len(part.label) for part in parts], dtype=torch.float64)
    parameters = torch.stack([fit[0] for fit in fits])  # (parts, parameters)
    mean = (share / share.sum()) @ parameters
    return Scaling(*meaning(mean), tuple(fit[1] for fit in fits), max(fit[2] for fit in fits))


def _fit(
    part: Scored, start: Tensor, meaning: Map, options: CalibrationOptions
) -> tuple[Tensor, int, float]:
    """Minimise the loss: parameters, number of steps, largest gradient that is left."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameters],
        lr=options.lr,
        max_iter=options.max_iter,
        line_search_fn="strong_wolfe" if options.optimizer == "lbfgs_line_search" else None,
    )

    @torch.enable_grad()
    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = mean_loss(part._replace(logit=Scaling(*meaning(parameters)).apply(part.logit)))
        loss.backward()
        return loss

    optimizer.step(evaluate)
    evaluate()
    steps = int(optimizer.state[parameters]["n_iter"])
    return parameters.detach(), steps, float(parameters.grad.abs().max())
