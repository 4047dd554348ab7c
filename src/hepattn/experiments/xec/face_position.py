"""How tokens say which face of the detector they are of."""

# B events, T tokens, D features, H heads

from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hepattn.nn.positional import Coordinate, LearnedEncoding, SinusoidalEncoding
from hepattn.nn.rotary import Rotary
from hepattn.physics import xec

PositionName = Literal["learnable", "sinusoidal", "rotary", "alibi", "geometric"]
COORDINATES = tuple(Coordinate(axis, scale=0.01) for axis in "xyz")  # cm, to order one


class FacePosition(nn.Module):
    """Tell the tokens which face they are.

    Args:
        encoding: How, see `EncoderOptions`.
        dim: Features D of a token.
        num_heads: Heads H of the attention among them.
        names: What each token is of.
    """

    no_weight_decay = ("kind",)
    place: Tensor
    is_pmt: Tensor

    def __init__(
        self, encoding: PositionName, dim: int, num_heads: int, names: tuple[str, ...]
    ) -> None:
        super().__init__()
        face = {"coarse": "outer", "centre": "outer", "fine": "outer", "closeup": "inner"}
        numbers = [xec.FACES.index(face.get(name, name)) for name in names]
        place = torch.from_numpy(np.array(xec.face_centroids()[numbers], np.float32))  # (T, 3)
        self.register_buffer("place", place, persistent=False)
        is_pmt = torch.tensor([name not in ("inner", "closeup") for name in names])
        self.register_buffer("is_pmt", is_pmt.float().unsqueeze(-1), persistent=False)
        self.name = encoding
        self.num_heads = num_heads
        self.encoding: nn.Module | None = None
        self.register_parameter("kind", None)
        self.rotary = None
        if self.name == "learnable":
            self.encoding = LearnedEncoding(dim, len(place))
        elif self.name == "sinusoidal":
            number = [Coordinate("number")]
            self.encoding = SinusoidalEncoding(dim, number, alpha=1.0, base=10_000.0)
        elif self.name == "geometric":
            self.encoding = SinusoidalEncoding(dim, COORDINATES, alpha=10.0, base=20.0)
            self.kind = nn.Parameter(0.02 * torch.randn(dim))
        elif self.name == "rotary":
            self.rotary = partial(Rotary, coordinates=COORDINATES, alpha=4.0, base=8.0)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Mark the tokens.

        Args:
            tokens: (B, T, D)

        Returns:
            The tokens; a bias of the scores (1, H, T, T), or none; places for a rotary
            encoding (B, T, 3), or none.
        """
        place = self.place.unsqueeze(0)  # (1, T, 3)
        match self.name:
            case "learnable":
                return tokens + self.encoding(place), None, None
            case "sinusoidal":
                number = torch.arange(place.shape[1], device=place.device).view(1, -1, 1)
                return tokens + self.encoding(number), None, None
            case "geometric":
                return tokens + self.encoding(place) + self.is_pmt * self.kind, None, None
            case "rotary":
                return tokens, None, place.expand(tokens.shape[0], -1, -1)
            case _:
                steps = torch.arange(1, self.num_heads + 1, device=place.device)
                slope = 2.0 ** (-8 * steps / self.num_heads)  # arXiv:2108.12409
                apart = torch.cdist(place, place) * COORDINATES[0].scale  # (1, T, T)
                return tokens, -slope.view(1, -1, 1, 1) * apart.unsqueeze(1), None
