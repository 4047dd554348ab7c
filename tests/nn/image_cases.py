"""Images with masked cells, a small stack of layers, and the same evaluated cell by cell."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.conv import ConvNeXtBlock, MaskedConv
from hepattn.nn.next_block import NeXtBlock

Cells = dict[tuple[int, int], Tensor]  # features of the cells that exist, by row and column


def randomise(network: nn.Module) -> nn.Module:
    """Leave no parameter at zero or one, in float64."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network.double()


def draw(*shape: int, visible: float = 0.5, fill: float = math.nan) -> tuple[Tensor, Tensor]:
    """Images (B, H, W, C), ``fill`` at masked cells; the last event has none that is visible."""
    seen = torch.rand(shape[:-1]) < visible
    seen[-1] = False
    x = torch.randn(shape, dtype=torch.float64)
    return x.masked_fill(~seen.unsqueeze(-1), fill), seen


class Stack(nn.Module):
    """Stem, block, downsampling, block."""

    def __init__(self, dim: int = 4, **options: object) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                MaskedConv(2, dim, 4),
                ConvNeXtBlock(dim, 5, **options),
                nn.LayerNorm(dim),
                MaskedConv(dim, 2 * dim, 2, stride=2),
                ConvNeXtBlock(2 * dim, 3, **options),
            ]
        )
        randomise(self)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        for layer in self.layers:
            if isinstance(layer, MaskedConv):
                x, visible = layer(x, visible)
            elif isinstance(layer, NeXtBlock):
                x = layer(x, visible)
            else:
                x = layer(x)
        return x, visible


def evaluate_cells(layers: Sequence[nn.Module], cells: Cells) -> Cells:
    """Evaluate layers for the cells of one image, of which no others exist."""
    for layer in layers:
        if isinstance(layer, MaskedConv):
            cells = _convolve(layer, cells)
        elif isinstance(layer, NeXtBlock):
            cells = _block(layer, cells)
        else:
            cells = {place: layer(x) for place, x in cells.items()}
    return cells


def as_cells(x: Tensor, visible: Tensor) -> Cells:
    """The visible cells of one image (H, W, C)."""
    return {(h, w): x[h, w] for h, w in visible.nonzero().tolist()}


def _convolve(layer: MaskedConv, cells: Cells) -> Cells:
    size, stride, out = layer.kernel_size, layer.stride, {}
    before = (size - stride) // 2 if layer.padding == "same" else layer.padding
    keeps_places = layer.padding == "same" and stride == 1
    for h, w in cells if keeps_places else _outputs(cells, size, stride, before):
        total = layer.conv.bias.clone()
        for i in range(size):
            for j in range(size):
                place = (h * stride + i - before, w * stride + j - before)
                if place in cells:
                    total = total + layer.conv.weight[:, :, i, j] @ cells[place]
        out[h, w] = total
    return out


def _outputs(cells: Cells, size: int, stride: int, before: int) -> set[tuple[int, int]]:
    """Squares that read any cell."""

    def along(place: int) -> range:
        last = (place + before) // stride
        first = -(-(place + before - size + 1) // stride)
        return range(max(first, 0), last + 1)

    return {(h, w) for row, column in cells for h in along(row) for w in along(column)}


def _block(block: NeXtBlock, cells: Cells) -> Cells:
    conv, hidden = block.mixer.conv, {}
    half = conv.kernel_size[0] // 2
    for h, w in cells:
        total = conv.bias.clone()
        for i in range(-half, half + 1):
            for j in range(-half, half + 1):
                if (h + i, w + j) in cells:
                    weight = conv.weight[:, 0, i + half, j + half]
                    total = total + weight * cells[h + i, w + j]
        hidden[h, w] = F.gelu(block.expand(block.norm(total)))
    if not cells:
        return {}
    norms = sum(x**2 for x in hidden.values()).sqrt()
    ratio = norms / (norms.mean() + 1e-6)
    gamma, beta = block.response.weight, block.response.bias
    return {
        place: cells[place] + block.contract(gamma * (x * ratio) + beta + x)
        for place, x in hidden.items()
    }
