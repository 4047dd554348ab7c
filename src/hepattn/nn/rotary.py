"""Rotary encodings: turn queries and keys by angles that grow with their positions."""

# B events, H heads, N tokens, C coordinates, E head features, P pairs of features

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hepattn.nn.positional import Coordinate, log_spaced
from hepattn.ops.attention.heads import repeat_heads

# Cosines and sines of the pairs' angles, each (B, H' or 1, N, P) in float32, H' dividing H.
Rotation = tuple[Tensor, Tensor]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs (0, 1), (2, 3), … of each head's features.

    Args:
        x: Queries or keys (B, H, N, E).
        rotation: From `Rotary`; heads that share frequencies follow each other.

    Returns:
        (B, H, N, E) in the dtype of x; features beyond the 2P first ones as they were.
    """
    cos, sin = rotation
    if cos.shape[1] > 1:
        cos, sin = (repeat_heads(part, x.shape[1]) for part in rotation)  # (B, H, N, P)
    size = 2 * cos.shape[-1]
    pairs = x[..., :size].unflatten(-1, (-1, 2))  # (B, H, N, P, 2)
    if torch.compiler.is_compiling():
        first, second = pairs.unbind(-1)
        turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1)
    else:
        turned = _multiply(pairs, cos, sin)
    turned = turned.flatten(-2).to(x.dtype)  # (B, H, N, 2P)
    return turned if size == x.shape[-1] else torch.cat([turned, x[..., size:]], -1)


def _multiply(pairs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (..., 2) as complex numbers: a third of the time, but compilers know real ones."""
    pairs = pairs.to(torch.promote_types(pairs.dtype, torch.float32))
    if pairs.storage_offset() % 2 or any(stride % 2 for stride in pairs.stride()[:-1]):
        # A complex number must begin at an even place.
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))


class Rotary(nn.Module):
    """Angles by which the features of queries and keys are turned, pair by pair.

    A score then depends on the difference of two positions, besides the tokens themselves
    (arXiv:2104.09864). Each coordinate turns pairs of its own, by ωx with the frequencies of
    `SinusoidalEncoding`; an angle has to be ``harmonic``, with whole frequencies, so that scores
    depend on differences of φ, cyclically. Without coordinates the place in the sequence is the
    position; that has no cyclic symmetry: the first and the last token of an event are far apart,
    whatever a window says. Pairs that cannot be shared evenly by the coordinates are not turned.

    In the ``mixed`` form (arXiv:2403.13298) all coordinates turn all pairs, θ = Σ ω_c x_c, with
    directions drawn at random for each pair of each head. The frequencies of open coordinates are
    then learned; those of angles stay the whole numbers they were rounded to.

    Args:
        head_dim: Features E of a head.
        num_heads: Number of heads with frequencies of their own, if ``mixed``: as many as there
            are key heads.
        coordinates: The coordinates, in the order of the input; none for the place.
        alpha: Highest frequency, per unit of the scaled coordinate or per token; 1000 with
            coordinates and 1 without by default.
        base: Ratio between the highest and (nearly) the lowest frequency; 100 with coordinates and
            10 000 without by default.
        mixed: Whether all coordinates turn all pairs, by learned frequencies.

    Raises:
        ValueError: If a head has too few features, a coordinate is of kind ``circle``, or nothing
            could be learned by a ``mixed`` encoding.
    """

    no_weight_decay = ("learned",)

    frequencies: Tensor
    scale: Tensor

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        coordinates: Sequence[Coordinate] | None = None,
        alpha: float | None = None,
        base: float | None = None,
        mixed: bool = False,
    ) -> None:
        super().__init__()
        self.coordinates = tuple(coordinates or ())
        for coordinate in self.coordinates:
            if coordinate.kind == "circle":
                raise ValueError(
                    f"coordinate {coordinate.name}: kind='circle' gives no single angle to turn "
                    "by; use kind='harmonic'"
                )
        is_open = torch.tensor([c.kind == "open" for c in self.coordinates] or [True])  # (C,)
        num_coordinates = len(is_open)
        num_pairs = head_dim // 2 if mixed else head_dim // 2 // num_coordinates
        if num_pairs < 1:
            raise ValueError(
                f"head_dim={head_dim} must hold two features for each of "
                f"{num_coordinates} coordinates"
            )
        if mixed and not is_open.any():
            raise ValueError("mixed=True needs an open coordinate; angles' frequencies stay whole")
        alpha = (1000.0 if self.coordinates else 1.0) if alpha is None else alpha
        base = (100.0 if self.coordinates else 10000.0) if base is None else base
        frequencies = log_spaced(num_pairs, alpha, base)  # (P,)
        self.mixed = mixed
        self.register_parameter("learned", None)
        if mixed:
            direction = torch.randn(num_heads, num_coordinates, num_pairs)
            frequencies = frequencies * direction / direction.norm(dim=1, keepdim=True)
            self.learned = nn.Parameter(frequencies[:, is_open])  # (H, open C, P)
            frequencies = frequencies[:, ~is_open].round()  # (H, C - open C, P)
        else:
            whole = frequencies.round().clamp(min=1)
            frequencies = frequencies.where(is_open[:, None], whole)  # (C, P of a coordinate)
        scale = torch.tensor([c.scale for c in self.coordinates] or [1.0])  # (C,)
        self.register_buffer("frequencies", frequencies, persistent=mixed)
        self.register_buffer("scale", scale, persistent=False)
        self.open = is_open.nonzero().flatten().tolist()
        self.harmonic = (~is_open).nonzero().flatten().tolist()

    def forward(self, x: Tensor) -> Rotation:
        """Find the rotations of a batch, once for all layers, in float32 whatever the autocast.

        Args:
            x: Raw coordinates (B, N, C); without coordinates the places (B or 1, N, 1).

        Returns:
            Cosines and sines, each (B, 1 or H, N, P); a position of zero is not turned.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() * self.scale.float()  # (B, N, C)
            frequencies = self.frequencies.float()
            if self.mixed:
                x = x.unsqueeze(1)  # (B, 1, N, C)
                angle = x[..., self.open] @ self.learned.float()  # (B, H, N, P)
                angle = angle + x[..., self.harmonic] @ frequencies
            else:
                angle = (x.unsqueeze(-1) * frequencies).flatten(2).unsqueeze(1)  # (B, 1, N, P)
            return angle.cos(), angle.sin()
