"""Piecewise linear encoding of numbers (arXiv:2203.05556)."""

# F features, T bins, Q quantiles, E embedding features

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.nn.activation import ActivationName

MIN_WIDTH = 0.01  # of a learned bin, as a share of the mean width
LARGE = 1e30  # stands for infinity, which times zero is not a number


@dataclass(frozen=True)
class PiecewiseLinearOptions:
    """How a number is encoded by the bins that it fills.

    Args:
        num_bins: Number of bins of each feature.
        bins: ``quantile`` has about the same number of training values in each bin, ``uniform`` has
            bins of equal width from the smallest training value to the largest, ``learned`` has
            edges that are trained.
        activation: Applied to the embedding of a feature; none by default.
        dropout: Probability of dropping an embedding feature.
        layernorm: Whether there is a layer norm before the dropout.

    Raises:
        ValueError: If a number is out of range.
    """

    num_bins: int = 16
    bins: Literal["quantile", "uniform", "learned"] = "quantile"
    activation: ActivationName | None = None
    dropout: float = 0.0
    layernorm: bool = False

    def __post_init__(self) -> None:
        if self.num_bins < 1:
            raise ValueError(f"num_bins={self.num_bins} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")


class PiecewiseLinearEncoding(nn.Module):
    """Write a number as how full each bin is: 1 below it, 0 above it, its share of its own bin.

    The encoding is continuous, and constant beyond the outer edges. Equal quantiles, as discrete
    columns have them, make one edge, so that no bin is empty; what a feature lacks in bins is
    always 0. A constant column has no bins. Learned edges start near the quantiles: nine tenths of
    them and one tenth of the uniform edges, so that all bins have a width.

    Args:
        num_features: Number of features F.
        options: Number of bins T and where their edges are.
    """

    no_weight_decay = ("edges",)
    start: Tensor
    inverse_width: Tensor
    edges: nn.Parameter | None

    def __init__(
        self, num_features: int, options: PiecewiseLinearOptions = PiecewiseLinearOptions()
    ) -> None:
        super().__init__()
        self.num_bins, self.bins = options.num_bins, options.bins
        self.is_fitted = False
        self.register_parameter("edges", None)
        if options.bins == "learned":
            edges = torch.full((num_features, options.num_bins + 1), math.nan)
            self.edges = nn.Parameter(edges)
        else:
            for name in ("start", "inverse_width"):
                blank = torch.full((num_features, options.num_bins), math.nan)
                self.register_buffer(name, blank)
        self.register_load_state_dict_post_hook(_note_whether_fitted)

    @torch.no_grad()
    def fit(self, quantiles: Tensor) -> None:
        """Place the edges.

        Args:
            quantiles: Quantiles of each feature at equal steps (Q, F).
        """
        quantiles = quantiles.detach().cpu().double().sort(0).values
        share = torch.linspace(0, 1, self.num_bins + 1, dtype=torch.float64)
        # between two discrete values there is nothing to be told apart
        edges = torch.quantile(quantiles, share, dim=0, interpolation="nearest")  # (T + 1, F)
        low, high = quantiles[0], quantiles[-1]  # (F)
        uniform = low + share.unsqueeze(1) * (high - low)
        if self.edges is not None:
            spread = torch.where(high > low, uniform, low + share.unsqueeze(1))
            self.edges.copy_((0.9 * edges + 0.1 * spread).T)
        else:
            self._place((edges if self.bins == "quantile" else uniform).float())
        self.is_fitted = True

    def _place(self, edges: Tensor) -> None:
        """Keep the different ones of the edges (T + 1, F)."""
        self.start.zero_()
        self.inverse_width.zero_()
        for feature, column in enumerate(edges.unbind(1)):
            different = column.unique()
            num_bins = len(different) - 1
            self.start[feature, :num_bins] = different[:-1]
            self.inverse_width[feature, :num_bins] = 1 / different.diff()

    def forward(self, x: Tensor) -> Tensor:
        """Encode features (..., F) as bins (..., F, T).

        Raises:
            RuntimeError: If the bins are still to be placed.
        """
        if not self.is_fitted:
            raise RuntimeError(
                "the bins are those of the training split, which this network has not seen; call "
                "fit_inputs(network, summaries) or load a checkpoint first"
            )
        x = x.clamp(-LARGE, LARGE).unsqueeze(-1)  # (..., F, 1)
        if self.edges is None:
            return ((x - self.start) * self.inverse_width).clamp(0, 1)
        edges = self.edges.sort(-1).values  # (F, T + 1)
        width = edges.diff(dim=-1)  # (F, T)
        least = MIN_WIDTH * width.detach().mean(-1, keepdim=True)
        least = least.clamp(min=torch.finfo(width.dtype).tiny)
        return ((x - edges[:, :-1]) / torch.maximum(width, least)).clamp(0, 1)


def _note_whether_fitted(encoding: PiecewiseLinearEncoding, _: object) -> None:
    numbers = encoding.start if encoding.edges is None else encoding.edges
    encoding.is_fitted = not numbers.isnan().any().item()
