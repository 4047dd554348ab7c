"""P-CNN: convolutions along the particles of a jet, sorted by pt (arXiv:1902.09914)."""

# B jets, N particles, F features, D features of a particle

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.normalise import Feature, Normalise


class ParticleConvNetwork(nn.Module):
    """Classify jets by a residual network of convolutions along their particles.

    A convolution of width 3, then stages of residual units of two such convolutions; each stage
    after the first halves the sequence. The mean over what is left of the real particles goes to a
    classifier. The defaults are the published ones (arXiv:1902.08570): 14 layers on the longest
    way. Padding is zero before each convolution, so that a jet sees its own end and nothing
    behind it.

    The order of the particles matters: real ones first, by falling pt.

    Args:
        features: Columns of the input, in order.
        num_classes: Number of classes.
        dim: Features that the first convolution makes.
        stages: Features of the residual units of each stage.
        dense_dim: Hidden units of the classifier.
        dropout: Probability of dropping one of them.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        num_classes: int,
        dim: int = 32,
        stages: Sequence[Sequence[int]] = ((64, 64), (64, 64), (128, 128)),
        dense_dim: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(features)
        self.convolution = _Convolution(len(self.normalise.embedded), dim)
        self.units = nn.ModuleList()
        for number, stage in enumerate(stages):
            for place, dim_out in enumerate(stage):
                halves = number > 0 and place == 0
                self.units.append(ResidualUnit(dim, dim_out, stride=2 if halves else 1))
                dim = dim_out
        self.norm = MaskedBatchNorm(dim)
        self.dense = nn.Linear(dim, dense_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dense_dim, num_classes)

    def forward(self, x: Tensor, vectors: Tensor, valid: Tensor) -> Tensor:
        """Classify the jets.

        Args:
            x: Raw columns (B, N, F).
            vectors: Four-vectors (B, N, 4); not used.
            valid: True for real particles (B, N), real ones first.

        Returns:
            Logits (B, num_classes).
        """
        x = self.normalise(x, valid)
        if valid.shape[1] == 0:  # a convolution needs a slot to look at
            x, valid = F.pad(x, (0, 0, 0, 1)), F.pad(valid, (0, 1))
        x = self.convolution(x, valid)  # (B, N, D)
        for unit in self.units:
            x, valid = unit(x, valid)
        x = F.relu(self.norm(x, valid)).sum(1)  # (B, D)
        x = x / valid.sum(1, keepdim=True).clamp(min=1)
        return self.head(self.dropout(F.relu(self.dense(x))))


class ResidualUnit(nn.Module):
    """Norm, ReLU, convolution; the same again; and a shortcut around both.

    Args:
        dim: Number of input features.
        dim_out: Number of features after each convolution.
        stride: Step of the first convolution along the particles.
    """

    def __init__(self, dim: int, dim_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.first_norm = MaskedBatchNorm(dim)
        self.first = _Convolution(dim, dim_out, stride)
        self.second_norm = MaskedBatchNorm(dim_out)
        self.second = _Convolution(dim_out, dim_out)
        changes = dim != dim_out or stride != 1
        self.shortcut = nn.Linear(dim, dim_out, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Transform.

        Args:
            x: Features (B, N, D), zero at padded slots.
            valid: True for real particles (B, N).

        Returns:
            Features (B, ceil(N / stride), D), zero at padded slots, and which slots are real.
        """
        kept = valid[:, :: self.stride]
        shortcut = self.shortcut(x[:, :: self.stride])
        x = self.first(F.relu(self.first_norm(x, valid)), kept)
        x = self.second(F.relu(self.second_norm(x, kept)), kept)
        return (x + shortcut).masked_fill(~kept.unsqueeze(-1), 0.0), kept


class _Convolution(nn.Conv1d):
    """A convolution of width 3 along the particles, without bias: norms follow."""

    def __init__(self, dim: int, dim_out: int, stride: int = 1) -> None:
        super().__init__(dim, dim_out, kernel_size=3, stride=stride, padding=1, bias=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Convolve x (B, N, D); zero where ``valid`` (of the output) is not True."""
        x = super().forward(x.transpose(1, 2)).transpose(1, 2)
        return x.masked_fill(~valid.unsqueeze(-1), 0.0)
