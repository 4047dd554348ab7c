"""Scalings of columns whose numbers come from the training split."""

# C columns, Q quantiles, K knots

import math
from typing import Literal, get_args

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

FittedScaling = Literal[
    "standard", "robust", "minmax", "maxabs", "power", "quantile", "logit", "standard_logit"
]
FITTED_SCALINGS: tuple[FittedScaling, ...] = get_args(FittedScaling)

BLOCK = 32
NUM_KNOTS = BLOCK * BLOCK  # more than there are quantiles
POWERS = (-4.0, 6.0)
LOGIT_EDGE = 1e-3  # how far from 0 and 1 the ends of a column are before their logit


def fit_shift_and_scale(
    scaling: FittedScaling, mean: float, std: float, quantiles: Tensor
) -> tuple[float, float]:
    """Find what is subtracted from a column, and the factor after that.

    Args:
        scaling: ``standard`` gives mean 0 and standard deviation 1, as ``power`` has it before its
            curve; ``robust`` median 0 and a distance of 1 between the quartiles; ``minmax`` values
            from 0 to 1, as ``logit`` and ``standard_logit`` have it before their curve; ``maxabs``
            a largest magnitude of 1; ``quantile`` changes nothing before its curve.
        mean: Mean of the column.
        std: Its standard deviation.
        quantiles: Its quantiles at equal steps (Q,).

    Returns:
        Shift and scale. The scale is 1 where it would not be finite, as for a constant column.
    """
    low, high = quantiles[0].item(), quantiles[-1].item()
    if scaling in ("standard", "power"):
        shift, width = mean, std
    elif scaling == "robust":
        probabilities = torch.tensor([0.25, 0.5, 0.75], dtype=quantiles.dtype)
        lower, shift, upper = torch.quantile(quantiles, probabilities).tolist()
        width = upper - lower
    elif scaling in ("minmax", "logit", "standard_logit"):
        shift, width = low, high - low
    elif scaling == "maxabs":
        shift, width = 0.0, max(abs(low), abs(high))
    else:
        shift, width = 0.0, 1.0
    is_constant = low == high and scaling != "maxabs"
    if is_constant or not math.isfinite(width) or width <= 0:
        width = 1.0
    return (shift if math.isfinite(shift) else 0.0), 1 / width


class PowerCurve(nn.Module):
    """Make columns as Gaussian as a power of them can be: the curve of Yeo and Johnson.

    Its power is the most likely one, on the quantiles of the column; the result has mean 0 and
    standard deviation 1 there. Columns come with mean 0 and standard deviation 1, so that the power
    depends neither on their unit nor on their offset, and stays moderate.

    Source: doi:10.1093/biomet/87.4.954.

    Args:
        num_columns: Number of columns C.
    """

    power: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        for name in ("power", "shift", "scale"):
            self.register_buffer(name, torch.full((num_columns,), math.nan))

    @torch.no_grad()
    def fit(self, quantiles: Tensor) -> None:
        """Find the powers from quantiles at equal steps (Q, C)."""
        for column, x in enumerate(quantiles.double().unbind(1)):
            power = 1.0 if x[0] == x[-1] else _most_likely_power(x)
            y = yeo_johnson(x, torch.tensor(power, dtype=x.dtype))
            std = y.std(correction=0).item()
            self.power[column] = power
            self.shift[column] = y.mean().item()
            self.scale[column] = 1 / std if std > 0 else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Bend columns (..., C)."""
        return (yeo_johnson(x, self.power) - self.shift) * self.scale


def yeo_johnson(x: Tensor, power: Tensor) -> Tensor:
    """Bend x (..., C) by the powers (C,): ((1 + x)^λ - 1) / λ above 0, mirrored with 2 - λ below.

    Source: doi:10.1093/biomet/87.4.954, equation 2.1.
    """
    is_positive = x >= 0
    exponent = torch.where(is_positive, power, 2 - power)
    log = x.abs().log1p()
    is_zero = exponent.abs() < 1e-6
    bent = torch.expm1(exponent * log) / torch.where(is_zero, 1.0, exponent)
    bent = torch.where(is_zero, log, bent)
    return torch.where(is_positive, bent, -bent)


def _most_likely_power(x: Tensor) -> float:
    """Maximise the likelihood of a Gaussian after the curve, for one column (Q,)."""
    slope = (x.sign() * x.abs().log1p()).mean()

    def cost(power: float) -> float:
        y = yeo_johnson(x, torch.tensor(power, dtype=x.dtype))
        return (0.5 * y.var(correction=0).log() - (power - 1) * slope).item()

    return float(minimize_scalar(cost, bounds=POWERS, method="bounded").x)


class QuantileCurve(nn.Module):
    """Make columns Gaussian: what lies at a quantile goes to that quantile of a normal.

    Between quantiles it is a straight line, outside of them the value of the last one. Equal
    quantiles, as discrete columns have them, count as one, in the middle of their probabilities.

    Args:
        num_columns: Number of columns C.
    """

    knots: Tensor
    values: Tensor
    highest: Tensor

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        shape = (num_columns, NUM_KNOTS)
        self.register_buffer("knots", torch.full(shape, math.nan))
        self.register_buffer("values", torch.full(shape, math.nan))
        self.register_buffer("highest", torch.full((num_columns,), math.nan))
        first = torch.arange(num_columns) * BLOCK
        self.register_buffer("first", first, persistent=False)

    @torch.no_grad()
    def fit(self, quantiles: Tensor) -> None:
        """Place the knots at quantiles at equal steps (Q, C).

        Raises:
            ValueError: If there are too many quantiles.
        """
        Q = len(quantiles)
        if Q >= NUM_KNOTS:
            raise ValueError(f"{Q} quantiles must be fewer than {NUM_KNOTS}")
        self.knots.fill_(math.inf)
        self.values.zero_()
        for column, x in enumerate(quantiles.float().unbind(1)):
            knots, counts = x.unique_consecutive(return_counts=True)
            last = counts.cumsum(0) - 1
            middle = (2 * last - counts + 1).double() / (2 * max(Q - 1, 1))
            probability = middle.clamp(0.5 / Q, 1 - 0.5 / Q)
            self.knots[column, : len(knots)] = knots
            self.values[column, : len(knots)] = torch.special.ndtri(probability).float()
            self.highest[column] = knots[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Bend columns (..., C)."""
        x = torch.maximum(torch.minimum(x, self.highest), self.knots[:, 0])
        place = self._find(x)
        knots, values = self.knots.flatten(), self.values.flatten()  # (C K)
        below, above = knots[place], knots[place + 1]  # beyond the highest knot is infinity
        share = (x - below) / (above - below)
        return torch.lerp(values[place], values[place + 1], share)

    def _find(self, x: Tensor) -> Tensor:
        """Number of the last knot, in rows of all columns, that is not above x (..., C).

        First the block of knots, then the place in it: few operations, all of which ONNX has.
        """
        x = x.unsqueeze(-1)
        blocks = self.knots.flatten().unflatten(0, (-1, BLOCK))  # (C K / BLOCK, BLOCK)
        firsts = blocks[:, 0].unflatten(0, (-1, BLOCK))  # (C, BLOCK)
        block = (firsts <= x).sum(-1).sub(1).clamp(min=0) + self.first  # (..., C)
        within = (blocks[block] <= x).sum(-1).sub(1).clamp(min=0)
        return block * BLOCK + within


class LogitCurve(nn.Module):
    """Stretch the ends of columns between two bounds: ln(u / (1 - u)).

    Columns come with values from 0 to 1, of which u keeps a thousandth of distance to both, so that
    the result lies between -6.9 and 6.9. Beyond the training values it is that of the last one.

    Args:
        num_columns: Number of columns C.
        is_standard: Whether the result has mean 0 and standard deviation 1 on the quantiles of the
            column; else a constant column alone is shifted, to 0.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, num_columns: int, is_standard: bool = False) -> None:
        super().__init__()
        self.is_standard = is_standard
        for name in ("shift", "scale"):
            self.register_buffer(name, torch.full((num_columns,), math.nan))

    @torch.no_grad()
    def fit(self, quantiles: Tensor) -> None:
        """Find mean and standard deviation from quantiles at equal steps (Q, C)."""
        y = _squeezed_logit(quantiles.double())
        std, is_constant = y.std(0, correction=0), y[0] == y[-1]
        is_standard = torch.full_like(is_constant, self.is_standard)
        self.shift.copy_(torch.where(is_standard | is_constant, y.mean(0), 0.0))
        self.scale.copy_(torch.where(is_standard & ~is_constant, 1 / std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Bend columns (..., C)."""
        return (_squeezed_logit(x) - self.shift) * self.scale


def _squeezed_logit(x: Tensor) -> Tensor:
    return torch.logit(LOGIT_EDGE + (1 - 2 * LOGIT_EDGE) * x.clamp(0, 1))
