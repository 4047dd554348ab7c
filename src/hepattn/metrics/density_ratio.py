"""How well a network knows the ratio of two densities."""

# J events, K bins, V variables

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hepattn.metrics.event_classification import effective_number


class Closure(NamedTuple):
    """The numerator and the reweighted denominator in bins of a variable.

    Attributes:
        edges: Edges of the bins (K + 1).
        numerator: Summed weights of the numerator (K).
        numerator_error: Their errors, √Σw² (K).
        denominator: Summed weights times ratios of the denominator (K).
        denominator_error: Their errors (K).
        chi2: Sum of the squares of the differences over their errors.
        ndf: Number of bins that have errors, less one where the sums were made equal.
    """

    edges: Tensor
    numerator: Tensor
    numerator_error: Tensor
    denominator: Tensor
    denominator_error: Tensor
    chi2: float
    ndf: int

    def chi2_per_ndf(self) -> float:
        """Around one where the ratio is right, as far as the events can tell; NaN of no bins."""
        return self.chi2 / self.ndf if self.ndf > 0 else float("nan")


class DensityRatioMetrics(Metric):
    """Collect the log ratios of all events and answer questions about them.

    Several processes answer for all of their events together inside ``sync_context()``.

    Args:
        num_variables: Number of variables V in which the closure is wanted.
    """

    full_state_update = False
    log_ratio: list[Tensor]
    label: list[Tensor]
    weight: list[Tensor]
    variables: list[Tensor]
    true_log_ratio: list[Tensor]
    relative_spread: list[Tensor]

    def __init__(self, num_variables: int) -> None:
        super().__init__()
        self.num_variables = num_variables
        states = ("log_ratio", "label", "weight", "variables", "true_log_ratio", "relative_spread")
        for name in states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        log_ratio: Tensor,
        label: Tensor,
        weight: Tensor,
        variables: Tensor,
        true_log_ratio: Tensor | None = None,
        relative_spread: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            log_ratio: Logarithm of numerator over denominator, as the network says (J).
            label: 1 for events of the numerator, 0 of the denominator, -1 for neither (J).
            weight: Weight of each event (J), of either sign.
            variables: What the closure is looked at in (J, V).
            true_log_ratio: The truth (J), NaN where it is not known; by default nowhere.
            relative_spread: Uncertainty of each ratio, over the ratio (J); by default not known.

        Raises:
            FloatingPointError: If a log ratio is not finite.
        """
        known = label >= 0
        if not log_ratio[known].isfinite().all():
            raise FloatingPointError("the network's ratios are not finite; its training diverged")
        if true_log_ratio is None:
            true_log_ratio = torch.full_like(log_ratio, torch.nan)
        self.log_ratio.append(log_ratio[known].detach().double())
        self.label.append(label[known])
        self.weight.append(weight[known].double())
        self.variables.append(variables[known].double())
        self.true_log_ratio.append(true_log_ratio[known].double())
        if relative_spread is not None:
            self.relative_spread.append(relative_spread[known].double())

    def compute(self) -> float:
        """The error, see `ratio_error`."""
        return self.error()

    def error(self) -> float:
        """Median error of the ratio over all events whose true one is known, see `ratio_error`."""
        return ratio_error(*self.ratios())

    def ratios(self) -> tuple[Tensor, Tensor]:
        """Log ratios and true ones of all events whose true one is known, each (J)."""
        log_ratio, truth = self._all("log_ratio"), self._all("true_log_ratio")
        known = truth.isfinite()
        return log_ratio[known], truth[known]

    def closure(self, variable: int, num_bins: int = 30, normalise: bool = False) -> Closure:
        """Compare the numerator with the reweighted denominator in a variable, see `closure`.

        Args:
            variable: Number of the variable.
            num_bins: Number of bins.
            normalise: Whether shapes alone are compared.
        """
        x, is_numerator = self._all("variables")[:, variable], self._all("label") == 1
        ratio, weight = self._all("log_ratio").exp(), self._all("weight")
        return closure(
            x, is_numerator, torch.where(is_numerator, weight, weight * ratio), num_bins, normalise
        )

    def effective_share(self) -> float:
        """Effective number of the reweighted denominator's events, by their number; NaN of none."""
        chosen = self._all("label") == 0
        if not chosen.any():
            return float("nan")
        log_ratio = self._all("log_ratio")[chosen]
        reweighted = self._all("weight")[chosen] * (log_ratio - log_ratio.max()).exp()
        return float(effective_number(reweighted)) / len(reweighted)

    def moments(self) -> dict[str, float]:
        """Mean, standard deviation, lowest and highest log ratio of all events, NaN of none."""
        x = self._all("log_ratio")
        if not len(x):
            return dict.fromkeys(("mean", "std", "min", "max"), float("nan"))
        values = {"mean": x.mean(), "std": x.std(correction=0), "min": x.min(), "max": x.max()}
        return {name: float(value) for name, value in values.items()}

    def uncertainty(self) -> tuple[float, float] | None:
        """How uncertain ratios are, and how often that is true.

        Returns:
            The median of the spreads, over the ratio; and the share of events whose true ratio is
            within its spread of the network's one, NaN where no truth is known. None where there
            are no spreads.
        """
        spread = self._all("relative_spread")
        if not len(spread):
            return None
        truth = self._all("true_log_ratio")
        known = truth.isfinite()
        distance = (truth - self._all("log_ratio"))[known].expm1().abs()
        within = (distance <= spread[known]).double().mean()
        return float(spread.median()), float(within)

    def _all(self, name: str) -> Tensor:
        parts = getattr(self, name)
        if len(parts):
            return dim_zero_cat(parts)
        shape = (0, self.num_variables) if name == "variables" else (0,)
        return torch.empty(shape, dtype=torch.float64)


def ratio_error(
    log_ratio: Tensor, truth: Tensor, between: tuple[float, float] = (0.05, 0.95)
) -> float:
    """Median of |r / r_true − 1| over the events whose true log ratio is between two quantiles.

    Args:
        log_ratio: Logarithm of the ratio (J).
        truth: Logarithm of the true ratio (J).
        between: The quantiles of the true one.

    Returns:
        NaN without events.
    """
    if not len(truth):
        return float("nan")
    truth, order = truth.sort()
    low, high = (round(share * (len(truth) - 1)) for share in between)
    inside = slice(low, high + 1)
    return float((log_ratio[order][inside] - truth[inside]).expm1().abs().median())


def closure(
    x: Tensor, is_numerator: Tensor, weight: Tensor, num_bins: int = 30, normalise: bool = False
) -> Closure:
    """Compare two samples in bins of a variable that hold equally many events.

    Equal values fall into one bin, so that a variable of few values has fewer bins. The errors are
    those of the weights; the network's own uncertainty is not in them.

    Args:
        x: The variable (J).
        is_numerator: True for events of the numerator, False for those of the denominator (J).
        weight: Weights; of the denominator's events those times the ratio (J).
        num_bins: Number of bins, at most.
        normalise: Whether the denominator is scaled to the sum of the numerator first, so that
            shapes alone are compared.
    """
    ordered = x.sort().values
    steps = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)[1:-1]
    inner = ordered[((len(x) - 1) * steps).round().long()].unique() if len(x) else x
    inner = inner[inner > ordered[:1]]  # (K - 1)
    place = torch.bucketize(x.contiguous(), inner, right=True)  # (J)

    def summed(values: Tensor, chosen: Tensor) -> Tensor:
        sums = torch.zeros(len(inner) + 1, dtype=torch.float64, device=x.device)
        return sums.index_add_(0, place[chosen], values[chosen].double())  # (K)

    numerator, denominator = summed(weight, is_numerator), summed(weight, ~is_numerator)
    squares = summed(weight.square(), is_numerator), summed(weight.square(), ~is_numerator)
    scale = float(numerator.sum() / denominator.sum()) if normalise else 1.0
    variance = squares[0] + scale**2 * squares[1]
    used = variance > 0
    pull = (numerator - scale * denominator).square() / torch.where(used, variance, 1.0)
    return Closure(
        torch.cat([ordered[:1], inner, ordered[-1:]]),
        numerator,
        squares[0].sqrt(),
        scale * denominator,
        scale * squares[1].sqrt(),
        float(pull[used].sum()),
        int(used.sum()) - int(normalise),
    )
