"""The block of ConvNeXt V2 over places of any kind: cells of an image, nodes of a graph."""

# B events, P places, C channels

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.residual import DropPath
from hepattn.nn.response_mlp import can_fuse, relative_response, response_mlp

Masking = Literal["sparse", "seed"]


class Mixer(Protocol):
    """What lets places see their neighbours, such as a depthwise convolution."""

    def __call__(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Mix.

        Args:
            x: Features of the places (B, ..., C).
            visible: True for places that may be seen (B, ...); None if all may.

        Returns:
            Like ``x``. What it says at masked places is not looked at.
        """


class GlobalResponseNorm(nn.Module):
    """Let the channels of an event compete: global response normalisation (arXiv:2301.00808).

    ``x + weight * x * N + bias``, where N is the L2 norm of a channel over all visible places,
    divided by the mean of these norms over the channels.

    Args:
        dim: Number of channels C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: Features of the places (B, ..., C).
            visible: True for places that count (B, ...); None if all do.

        Returns:
            Like ``x``; zero at masked places.
        """
        x = hide(x, visible)
        factor = 1 + self.weight * relative_response(x)  # (B, 1, ..., C)
        return hide(torch.addcmul(self.bias, x, factor.to(x.dtype)), visible)

    def extra_repr(self) -> str:
        """The number of channels, for `print`."""
        return str(len(self.weight))


class NeXtBlock(nn.Module):
    """Mix places, then channels at each place, and add the result: a block of ConvNeXt V2.

    Mixer, layer norm, linear map to ``expansion`` times the channels, GELU, global response norm,
    linear map back, and attention if there is any (arXiv:2301.00808, without LayerScale).

    With ``sparse`` masking, masked places are as if they did not exist: nothing reads them, the
    response norm does not count them, and they are zero on the way out. On the CPU their channels
    are not even computed.

    ``seed`` is there to compare with: it masks after the mixer and on the residual path alone.
    That is not what a sparse convolution computes. What is under the mask enters the mixer; biases
    make the branch non-zero at masked places, which the response norm counts, attention sees and
    later blocks read.

    Args:
        dim: Number of channels C.
        mixer: Lets places see their neighbours.
        expansion: Hidden units, in multiples of the channels.
        drop_path: Probability of dropping the branch for an event in training.
        attention: Makes, of the number of channels, a layer such as `SqueezeExcite` that is called
            with the branch and ``visible`` before the residual; none by default.
        masking: Where masked places are taken out.

    Raises:
        ValueError: If ``expansion`` is not positive or ``masking`` unknown.
    """

    def __init__(
        self,
        dim: int,
        mixer: Mixer,
        expansion: int = 4,
        drop_path: float = 0.0,
        attention: Callable[[int], nn.Module] | None = None,
        masking: Masking = "sparse",
    ) -> None:
        super().__init__()
        if expansion < 1:
            raise ValueError(f"expansion={expansion} must be at least 1")
        if masking not in get_args(Masking):
            raise ValueError(f"masking={masking!r} must be one of {get_args(Masking)}")
        self.masking = masking
        self.mixer = mixer
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, expansion * dim)
        self.response = GlobalResponseNorm(expansion * dim)
        self.contract = nn.Linear(expansion * dim, dim)
        self.attention = None if attention is None else attention(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Update the places.

        Args:
            x: Features of the places (B, ..., C).
            visible: True for visible places (B, ...); None if all are.

        Returns:
            Like ``x``; with sparse masking zero at masked places.
        """
        counted = visible
        if self.masking == "seed":
            branch, counted = hide(self.mixer(x, None), visible), None
            x = hide(x, visible)
        else:
            x = hide(x, visible)
            branch = self.mixer(x, visible)
        branch = self._mix_channels(self.norm(branch), counted)
        if self.attention is not None:
            branch = self.attention(branch, counted)
        return x + self.drop_path(branch)

    def _mix_channels(self, x: Tensor, visible: Tensor | None) -> Tensor:
        layers = (self.expand, self.response, self.contract)
        parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
        places = x.flatten(1, -2)  # (B, P, C)
        seen = None if visible is None else visible.flatten(1)  # (B, P)
        if can_fuse(places, parameters):
            return response_mlp(places, seen, *parameters).view(x.shape)
        hidden = hide(F.gelu(self.expand(places)), seen)  # (B, P, 4C)
        # The norm is a factor for each event and channel, and a bias: it goes into the map behind.
        factor = 1 + self.response.weight * relative_response(hidden)  # (B, 1, 4C)
        weight = (self.contract.weight * factor).mT  # (B, 4C, C)
        bias = F.linear(self.response.bias, self.contract.weight, self.contract.bias)  # (C)
        return hide(hidden @ weight.to(hidden.dtype) + bias, seen).view(x.shape)


def hide(x: Tensor, visible: Tensor | None) -> Tensor:
    """Put zero at masked places.

    Args:
        x: Features of the places (B, ..., C); anything at masked places.
        visible: True for visible places (B, ...); None if all are.
    """
    return x if visible is None else torch.where(visible.unsqueeze(-1), x, 0.0)
