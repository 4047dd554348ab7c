"""The encoder of the liquid-xenon experiment, written as it is described: the benchmark's peer.

One convolutional backbone for the four rectangular faces, channels first with permutations around
norms and dense layers, an unfused response norm, features at 4×4 points of the last image; one
graph network for both hexagonal faces; torch's encoder over the six tokens.
"""

# B events, H rows, W columns, N nodes, C channels, D features of a token

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 2  # photons and time
HEX_ROWS = (11, 12, 11, 12, 13, 14)  # sensors of each row
# Steps from source to target in rows and half pitches: directions 1 to 6; 0 is the node itself.
HEX_STEPS = ((0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1))


class Faces(NamedTuple):
    """Images of the faces: four with channels first, and the nodes of two hexagonal ones."""

    inner: Tensor  # (B, 2, 93, 44)
    upstream: Tensor  # (B, 2, 24, 6)
    downstream: Tensor  # (B, 2, 24, 6)
    outer: Tensor  # (B, 2, 45, 72), the fine grid
    top: Tensor  # (B, 73, 2)
    bottom: Tensor  # (B, 73, 2)


def fine_grid(coarse: Tensor, centre: Tensor) -> Tensor:
    """Join the coarse outer face and its denser centre on one grid of small cells.

    The photons of a sensor are shared by its cells; its time is that of each of them.

    Args:
        coarse: Photons and times (B, 2, 9, 24): along z, along phi.
        centre: The same of the centre (B, 2, 5, 6).

    Returns:
        (B, 2, 45, 72)
    """
    grid = spread(coarse, 5, 3)
    grid[:, :, 15:30, 30:42] = spread(centre, 3, 2)
    return grid


def spread(x: Tensor, rows: int, columns: int) -> Tensor:
    """Turn each cell of (B, 2, H, W) into so many, and share its photons."""
    x = x.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    return torch.cat([x[:, :1] / (rows * columns), x[:, 1:]], 1)


def hex_edges() -> tuple[Tensor, Tensor, Tensor]:
    """Sources, targets and directions of all pairs of neighbours, each node with itself first."""
    first = [sum(HEX_ROWS[:row]) for row in range(len(HEX_ROWS))]
    edges = [(node, node, 0) for node in range(sum(HEX_ROWS))]
    for row, length in enumerate(HEX_ROWS):
        for column in range(length):
            for kind, (step, shift) in enumerate(HEX_STEPS, 1):
                if not 0 <= row + step < len(HEX_ROWS):
                    continue
                other = HEX_ROWS[row + step]
                twice = 2 * column - (length - 1) + shift + other - 1  # two columns
                if twice % 2 == 0 and 0 <= twice // 2 < other:
                    edges.append((first[row] + column, first[row + step] + twice // 2, kind))
    source, target, direction = torch.tensor(edges).unbind(1)
    return source, target, direction


class ResponseNorm(nn.Module):
    """Global response norm over all dimensions between events and channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, ..., C)."""
        norms = torch.norm(x, p=2, dim=tuple(range(1, x.ndim - 1)), keepdim=True)
        ratio = norms / (norms.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * ratio) + self.beta + x


class ChannelNetwork(nn.Module):
    """Norm, linear map, GELU, response norm, linear map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.grn = ResponseNorm(4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ..., C)."""
        return self.pwconv2(self.grn(self.act(self.pwconv1(self.norm(x)))))


class Block(nn.Module):
    """A block of ConvNeXt V2 on images (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.channels = ChannelNetwork(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Update (B, C, H, W)."""
        y = self.dwconv(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        return x + self.channels(y).permute(0, 3, 1, 2)


class ChannelsFirstNorm(nn.LayerNorm):
    """A layer norm of the channels of images (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each cell."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FaceBackbone(nn.Module):
    """From the image of a rectangular face to one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        width = dim // 32
        self.layers = nn.Sequential(
            nn.Conv2d(CHANNELS, width, kernel_size=4, stride=1, padding=1),
            ChannelsFirstNorm(width, eps=1e-6),
            *(Block(width) for _ in range(2)),
            ChannelsFirstNorm(width, eps=1e-6),
            nn.Conv2d(width, 2 * width, kernel_size=2, stride=2),
            *(Block(2 * width) for _ in range(3)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 2, H, W) to (B, D)."""
        x = self.layers(x)  # (B, 2C, H', W')
        return F.interpolate(x, size=(4, 4), mode="bilinear", align_corners=False).flatten(1)


class HexDepthwise(nn.Module):
    """Sum over the neighbours and the node, with a weight of each channel for each direction."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(1 + len(HEX_STEPS), dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        for name, numbers in zip(("source", "target", "direction"), hex_edges(), strict=True):
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, N, C)."""
        messages = x[:, self.source] * self.weight[self.direction]  # (B, edges, C)
        return torch.zeros_like(x).index_add(1, self.target, messages) + self.bias


class HexBlock(nn.Module):
    """The block of images on the nodes of a graph."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = HexDepthwise(dim)
        self.channels = ChannelNetwork(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Update (B, N, C)."""
        return x + self.channels(self.depthwise(x))


class HexBackbone(nn.Module):
    """From the nodes of a hexagonal face to one token."""

    def __init__(self, dim: int, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(CHANNELS, width), nn.LayerNorm(width), nn.GELU())
        self.blocks = nn.Sequential(*(HexBlock(width) for _ in range(4)))
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, 2) to (B, D)."""
        return self.project(self.blocks(self.embed(x)).mean(1))


class LiteralEncoder(nn.Module):
    """Six faces to six tokens that have seen each other.

    Args:
        dim: Features D of a token, a multiple of 32 and of the heads.
        depth: Layers of the fusion.
        num_heads: Its heads.
    """

    def __init__(self, dim: int = 1024, depth: int = 2, num_heads: int = 8) -> None:
        super().__init__()
        if dim % 32:
            raise ValueError(f"dim={dim} must be a multiple of 32")
        self.backbone = FaceBackbone(dim)
        self.hex_backbone = HexBackbone(dim)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 6, dim), std=0.02))
        layer = nn.TransformerEncoderLayer(
            dim, num_heads, 4 * dim, dropout=0.1, activation="gelu", batch_first=True
        )
        self.fusion = nn.TransformerEncoder(layer, depth)

    def forward(self, faces: Faces) -> Tensor:
        """Encode to (B, 6, D): inner, upstream, downstream, outer, top, bottom."""
        images = (faces.inner, faces.upstream, faces.downstream, faces.outer)
        tokens = [self.backbone(image) for image in images]
        tokens += [self.hex_backbone(nodes) for nodes in (faces.top, faces.bottom)]
        return self.fusion(torch.stack(tokens, 1) + self.pos_embed)
