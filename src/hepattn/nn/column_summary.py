"""What a network learns of its input columns before training."""

# F columns, Q quantiles

from typing import NamedTuple

from torch import Tensor


class ColumnSummary(NamedTuple):
    """Statistics of some columns over the real entries of the training split.

    They are those of the columns after each feature's ``transform``, before shift and scale.

    Attributes:
        count: Number of finite entries (F,).
        mean: Mean (F,).
        std: Standard deviation (F,).
        quantiles: Quantiles at equal steps from the minimum to the maximum (Q, F).
    """

    count: Tensor
    mean: Tensor
    std: Tensor
    quantiles: Tensor
