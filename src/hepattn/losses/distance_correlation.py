"""Distance correlation: a term that keeps a classifier from knowing a variable.

It vanishes only for independent variables, so that a cut on a score without it leaves the
spectrum of the variable, such as a mass, as it is (arXiv:2001.05310).
"""

# B events, V variables, O outputs: one for two classes, else one a class

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

Reduction = Literal["logits", "entropy"]
_NUM_PAIRS = {True: 2**18, False: 2**24}  # in a block, on a processor and elsewhere


def distance_correlation(
    a: Tensor, b: Tensor, weight: Tensor, power: float = 1.0, block_size: int | None = None
) -> Tensor:
    """Compute how far two variables depend on each other, in [0, 1].

    Time grows with B², memory with B: the distances of a few events at a time exist, and the
    gradients are summed beside them. Nothing waits for the device.

    Args:
        a: First variable in any unit (B).
        b: Second variable in any unit (B).
        weight: Weights of the events, not negative and without gradient (B).
        power: Power of the squared distance correlation: 1 is dCorr² and 1/2 dCorr itself.
        block_size: Number of events whose distances to all others exist at once; by default so
            many that they fit the cache of a processor, or fill another device.

    Returns:
        A scalar. Zero, with gradients of zero, where a variable is constant, no event has a
        weight, or there are no events. Events with a number that is not finite do not count.

    Raises:
        ValueError: If the power or the block size is not positive.
    """
    _check(power, block_size)
    if not len(a):
        return (a + b).sum()
    block_size = block_size or max(1, _NUM_PAIRS[a.device.type == "cpu"] // max(1, len(a)))
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    counts = a.isfinite() & b.isfinite() & (weight > 0)
    share = torch.where(counts, weight.detach().to(dtype), 0)
    total = share.sum()
    share = share / torch.where(total > 0, total, 1)
    with torch.autocast(a.device.type, enabled=False):
        x, y = _scaled(a.to(dtype), counts), _scaled(b.to(dtype), counts)
        covariance, variance_x, variance_y = _Moments.apply(x, y, share, block_size)
    depends = (covariance > 0) & (variance_x > 0) & (variance_y > 0)
    variance_x, variance_y = (torch.where(depends, v, 1) for v in (variance_x, variance_y))
    correlation = torch.where(depends, covariance, 1) * variance_x.rsqrt() * variance_y.rsqrt()
    return torch.where(depends, correlation**power, 0)


class Decorrelation(nn.Module):
    """Penalise that the output knows variables, in events that are not signal.

    Args:
        variables: Names of the auxiliary columns, in their order.
        strength: Factor λ of the sum over the variables.
        power: As in `distance_correlation`; 1, as published, is dCorr².
        weighted: Whether events count with the absolute value of their weight instead of all
            alike; an event of weight zero never counts.
        reduction: What is decorrelated for several classes: each of the ``logits``, summed, or
            the ``entropy`` of the probabilities.
        block_size: As in `distance_correlation`.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        variables: list[str],
        strength: float = 1.0,
        power: float = 1.0,
        weighted: bool = False,
        reduction: Reduction = "logits",
        block_size: int | None = None,
    ) -> None:
        super().__init__()
        if not variables or len(set(variables)) < len(variables):
            raise ValueError(f"variables={variables} must name at least one variable, each once")
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength={strength} must be finite and not negative")
        _check(power, block_size)
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction={reduction!r} must be one of {get_args(Reduction)}")
        self.variables = variables
        self.strength = strength
        self.power = power
        self.weighted = weighted
        self.reduction = reduction
        self.block_size = block_size

    def forward(
        self, logit: Tensor, auxiliary: Tensor, label: Tensor, weight: Tensor, background: Tensor
    ) -> Tensor:
        """Compute the penalty, λ times the sum of `correlations`, whose arguments it takes."""
        return self.strength * self.correlations(logit, auxiliary, label, weight, background).sum()

    def correlations(
        self, logit: Tensor, auxiliary: Tensor, label: Tensor, weight: Tensor, background: Tensor
    ) -> Tensor:
        """Compute the correlation of the output with each variable.

        Args:
            logit: Scores before sigmoid or softmax (B, O).
            auxiliary: The variables, in the order of their names (B, V).
            label: Number of the true class, -1 where it is not known (B).
            weight: Weight of each event, of either sign (B).
            background: True for events that are not signal (B).

        Returns:
            (V), summed over the classes for the reduction ``logits``.

        Raises:
            ValueError: If the columns do not fit the names, or the reduction the outputs.
        """
        if auxiliary.shape[1] != len(self.variables):
            raise ValueError(
                f"auxiliary has {auxiliary.shape[1]} columns, but must have those of "
                f"variables={self.variables} in this order"
            )
        share = weight.abs() if self.weighted else (weight != 0).to(torch.float32)
        share = share.masked_fill(~background | (label < 0), 0)
        terms = [
            [
                distance_correlation(variable, output, share, self.power, self.block_size)
                for output in self._reduce(logit).unbind(1)
            ]
            for variable in auxiliary.unbind(1)
        ]
        return torch.stack([torch.stack(row).sum() for row in terms])

    def _reduce(self, logit: Tensor) -> Tensor:
        """What is decorrelated: (B, O), or the entropy (B, 1)."""
        if self.reduction == "logits":
            return logit
        if logit.shape[1] == 1:
            raise ValueError(
                "reduction='entropy' is for several classes: set reduction: logits for one output"
            )
        log_probability = logit.float().log_softmax(1)
        return -(log_probability.exp() * log_probability).sum(1, keepdim=True)


def _check(power: float, block_size: int | None) -> None:
    if not 0 < power < math.inf:
        raise ValueError(f"power={power} must be finite and positive")
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size={block_size} must be positive, or null to be chosen")


def _scaled(x: Tensor, counts: Tensor) -> Tensor:
    """Map the events that count to [0, 1], a constant to 0.

    Distance correlation knows neither shift nor scale, so both may be taken as given numbers: the
    gradients stay exact.
    """
    known = x.detach()
    low = torch.where(counts, known, math.inf).amin()
    high = torch.where(counts, known, -math.inf).amax()
    rounding = 16 * torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs())
    varies = high - low > rounding
    x = torch.where(counts & varies, x, low.where(varies, 0))
    return (x - low.where(varies, 0)) / torch.where(varies, high - low, 1)


class _Moments(torch.autograd.Function):
    """Squared distance covariance of x and y, and of each with itself.

    With the shares p, distances a_ij = |x_i - x_j| and A_ij = a_ij - a_i. - a_.j + a_.., whose
    weighted rows sum to zero, the covariance is sum_ij p_i p_j A_ij B_ij. Therefore its derivative
    by x_k is 2 p_k sum_j p_j sign(x_k - x_j) B_kj.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor, share: Tensor, block_size: int) -> Tensor:
        wants = ctx.needs_input_grad[:2]
        num = len(x)
        blocks = [slice(start, start + block_size) for start in range(0, num, block_size)]
        # buffers for all blocks: new ones would leave holes in the memory of a processor
        A, B, sign, product = x.new_empty(4, min(block_size, num), num).unbind()
        means = x.new_empty(2, num)  # a_i. and b_i.
        for values, mean in zip((x, y), means, strict=True):
            for rows in blocks:
                mean[rows] = _differences(values, rows, A).abs_() @ share
        centres = means - (means @ share)[:, None]
        moments = x.new_zeros(3)
        gradients = [x.new_empty(2, num) if wanted else None for wanted in wants]
        for rows in blocks:
            own = share[rows]
            a = _differences(x, rows, A).abs_().sub_(means[0, rows, None]).sub_(centres[0])
            b = _differences(y, rows, B).abs_().sub_(means[1, rows, None]).sub_(centres[1])
            for i, (left, right) in enumerate(((a, b), (a, a), (b, b))):
                moments[i] += own @ (torch.mul(left, right, out=product[: len(own)]) @ share)
            for values, gradient, itself, other in (
                (x, gradients[0], a, b),
                (y, gradients[1], b, a),
            ):
                if gradient is not None:
                    signs = _differences(values, rows, sign).sign_()
                    for i, (centred, factor) in enumerate(((other, 2), (itself, 4))):
                        torch.mul(signs, centred, out=product[: len(own)])
                        gradient[i, rows] = factor * own * (product[: len(own)] @ share)
        ctx.save_for_backward(*(gradient for gradient in gradients if gradient is not None))
        return moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        by_x, by_y = (next(saved) if wants else None for wants in ctx.needs_input_grad[:2])
        return (
            None if by_x is None else grad[0] * by_x[0] + grad[1] * by_x[1],
            None if by_y is None else grad[0] * by_y[0] + grad[2] * by_y[1],
            None,
            None,
        )


def _differences(x: Tensor, rows: slice, buffer: Tensor) -> Tensor:
    """Differences of some events to all, in the first rows of a buffer."""
    some = x[rows, None]
    return torch.sub(some, x, out=buffer[: len(some)])
