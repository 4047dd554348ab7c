"""Columns of made-up events, and their statistics."""

import torch
from torch import Tensor

from hepattn.nn.column_summary import ColumnSummary

NUM_QUANTILES = 1001


def summarise(x: Tensor) -> ColumnSummary:
    """Statistics of columns (N, F), as the data gives them."""
    steps = torch.linspace(0, 1, NUM_QUANTILES, dtype=torch.float64)
    return ColumnSummary(
        count=torch.full((x.shape[1],), len(x)),
        mean=x.mean(0),
        std=x.std(0, correction=0),
        quantiles=torch.quantile(x.double(), steps, dim=0).float(),
    )
