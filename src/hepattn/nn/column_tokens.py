"""One vector for each column of an event or an object."""

# F columns, C of them numbers, G of them categorical, T bins, V categories, E embedding features,
# B events, P slots of a kind of objects

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.activation import make_activation
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.normalise import Feature
from hepattn.nn.piecewise_linear import PiecewiseLinearEncoding, PiecewiseLinearOptions

NumericEmbedding = Literal["linear", "feature_wise", "piecewise_linear"]


class ColumnTokens(nn.Module):
    """One vector for each column: numbers first, then categories.

    A number is encoded as itself or as its bins, a category as a one for it among zeros; the
    encoding of each column is mapped linearly. A category that is not in the feature list has a
    vector for all such; what is not a number stays none.

    Args:
        features: The columns, in order.
        dim: Number of embedding features E.
        numeric: How numbers are embedded; `EmbeddingOptions` says what the names mean.
        bins: The bins of ``piecewise_linear``.
    """

    no_weight_decay = ("bias",)
    values: Tensor

    def __init__(
        self,
        features: Sequence[Feature],
        dim: int,
        numeric: NumericEmbedding = "linear",
        bins: PiecewiseLinearOptions = PiecewiseLinearOptions(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.numbers = [i for i, feature in enumerate(features) if feature.categories is None]
        self.categories = [i for i, feature in enumerate(features) if i not in self.numbers]
        self.bins = None
        self.norm = self.activation = self.dropout = nn.Identity()
        self.register_parameter("bias", None)
        if self.numbers:
            self._add_numbers(dim, numeric, bins)
        if self.categories:
            self._add_categories(dim, [features[i].categories or () for i in self.categories])

    def _add_numbers(
        self, dim: int, numeric: NumericEmbedding, bins: PiecewiseLinearOptions
    ) -> None:
        num, size = len(self.numbers), 1
        if numeric == "piecewise_linear":
            self.bins, size = PiecewiseLinearEncoding(num, bins), bins.num_bins
            self.activation = make_activation(bins.activation)
            self.norm = nn.LayerNorm(dim) if bins.layernorm else nn.Identity()
            self.dropout = nn.Dropout(bins.dropout) if bins.dropout else nn.Identity()
        self.weight = nn.Parameter(torch.empty(num, size, dim))
        self.bias = nn.Parameter(torch.zeros(num, dim))
        if numeric == "linear":
            nn.init.normal_(self.weight, std=0.02)
        else:
            for part in (self.weight, self.bias):
                nn.init.uniform_(part, -(size**-0.5), size**-0.5)

    def _add_categories(self, dim: int, lists: Sequence[tuple[int, ...]]) -> None:
        values = torch.full((len(lists), max(map(len, lists))), float("nan"))  # equal to nothing
        for row, known in zip(values, lists, strict=True):
            row[: len(known)] = torch.tensor(known, dtype=values.dtype)
        self.register_buffer("values", values, persistent=False)  # the feature list has them
        self.table = nn.Parameter(torch.randn(len(lists), values.shape[1] + 1, dim))

    @property
    def is_linear(self) -> bool:
        """Whether a vector is a linear map of its column's encoding."""
        return all(isinstance(m, nn.Identity) for m in (self.activation, self.norm, self.dropout))

    def _encode_numbers(self, x: Tensor) -> Tensor:
        """Encode the numbers among scaled columns (..., F), (..., C, T)."""
        x = x[..., self.numbers]
        return x.unsqueeze(-1) if self.bins is None else self.bins(x)

    def _encode_categories(self, x: Tensor) -> Tensor:
        """Encode the categories among columns (..., F), (..., G, V + 1), the unknown one last."""
        x = x[..., self.categories].unsqueeze(-1)
        known = x == self.values  # (..., G, V)
        found = torch.cat([known, ~known.any(-1, keepdim=True)], -1).to(x.dtype)
        return torch.where(x.isnan(), x, found)

    def forward(self, x: Tensor) -> Tensor:
        """Embed scaled columns (..., F), each for itself, (..., F, E)."""
        tokens = []
        if self.numbers:
            y = _map_each(self._encode_numbers(x), self.weight) + self.bias  # (..., C, E)
            tokens.append(self.dropout(self.norm(self.activation(y))))
        if self.categories:
            tokens.append(_map_each(self._encode_categories(x), self.table))  # (..., G, E)
        return torch.cat(tokens, -2)

    def reduce(self, x: Tensor, reduction: nn.Module) -> Tensor:
        """Embed and reduce scaled columns (..., F) in one linear map, (..., E).

        Args:
            x: Scaled columns.
            reduction: A reduction that can be folded into the weights.
        """
        codes, rows = [], []
        constants = [] if reduction.bias is None else [reduction.bias]
        if self.numbers:
            codes.append(self._encode_numbers(x).flatten(-2))
            rows.append(reduction.fold(self.weight, 0).flatten(0, 1))
            constants.append(reduction.fold(self.bias.unsqueeze(1), 0).sum((0, 1)))
        if self.categories:
            codes.append(self._encode_categories(x).flatten(-2))
            rows.append(reduction.fold(self.table, len(self.numbers)).flatten(0, 1))
        weight = torch.cat(rows)  # (C T + G (V + 1), E)
        constant = sum(constants, start=weight.new_zeros(weight.shape[1]))  # (E)
        return F.linear(torch.cat(codes, -1), weight.T, constant)


def _map_each(codes: Tensor, weight: Tensor) -> Tensor:
    """Map the codes (..., F, T) of each column by its weight (F, T, E)."""
    if codes.shape[-1] == 1:
        return codes * weight.squeeze(1)
    return torch.einsum("...ft,fte->...fe", codes, weight)


class ColumnConvolution(nn.Module):
    """One vector for all columns at once: batch normalisation, linear map, ReLU.

    Args:
        num_columns: Number of columns F.
        dim: Number of embedding features E.
    """

    def __init__(self, num_columns: int, dim: int) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm(num_columns)
        self.linear = nn.Linear(num_columns, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed scaled columns.

        Args:
            x: Columns (B, P, F) of objects.
            valid: True for real objects (B, P).

        Returns:
            (B, P, E)
        """
        return F.relu(self.linear(self.norm(x, valid)))
