"""From the image of a face, or the array of an end, to one token."""

# B events, G groups of them, H rows, W columns, N nodes, C channels, D features of a token,
# P slots of a pooling

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.channel_attention import ConvBlockAttention, NonLocal, SqueezeExcite
from hepattn.nn.conv import ConvNeXtBlock, MaskedConv
from hepattn.nn.graph import Edges, GraphAttention, HexDepthwise, HexNeXtBlock
from hepattn.nn.next_block import Masking, hide
from hepattn.nn.pooling import masked_mean
from hepattn.ops.attention import Full, make_plan
from hepattn.physics import xec

FaceAttention = Literal["none", "se", "cbam", "nonlocal"]
PoolName = Literal["attention", "adaptive", "bilinear"]
HexMixer = Literal["depthwise", "gat"]
StemName = Literal["patch", "same", "shrinking"]

FACE_ATTENTIONS: dict[FaceAttention, Callable[[int], nn.Module] | None] = {
    "none": None,
    "se": SqueezeExcite,
    "cbam": ConvBlockAttention,
    "nonlocal": NonLocal,
}
STEMS: dict[StemName, tuple[int, int, Literal["same"] | int]] = {
    "patch": (2, 2, "same"),
    "same": (3, 1, "same"),
    "shrinking": (4, 1, 1),
}
"""Width, stride and border of the first convolution."""
GRID = 4  # rows and columns that an image is pooled to
FIRST_BLOCKS, LAST_BLOCKS = 2, 3
POSITION_SCALE = 50.0  # cm
HEX_BLOCKS = 4


class AttentionPooling(nn.Module):
    """Let learned vectors ask the cells of an image, which say where they are.

    Args:
        dim: Channels C of the image.
        num_slots: Number P of vectors.
    """

    no_weight_decay = ("seeds",)

    def __init__(self, dim: int, num_slots: int) -> None:
        super().__init__()
        self.seeds = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_slots, dim)))
        self.position = nn.Linear(3, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, AttentionOptions(num_heads=2 if dim % 2 == 0 else 1))

    def forward(self, x: Tensor, visible: Tensor | None, position: Tensor) -> Tensor:
        """Pool the visible cells.

        Args:
            x: Image (B, H, W, C).
            visible: Cells that are seen (B, H, W); None if all are.
            position: Where they are, of order one, in each of G groups of events (G, H, W, 3).

        Returns:
            (B, P, C)
        """
        groups = self.norm(x).unflatten(0, (position.shape[0], -1))  # (G, B / G, H, W, C)
        cells = groups + self.position(position).unsqueeze(1)
        cells = cells.flatten(0, 1).flatten(1, 2)  # (B, H W, C)
        seeds = self.seeds.expand(x.shape[0], -1, -1)  # (B, P, C)
        plan = make_plan(Full(), _all_true(cells), _all_true(seeds))
        if visible is not None:
            seen = visible.flatten(1).unsqueeze(1).expand(-1, seeds.shape[1], -1)  # (B, P, H W)
            plan = plan.restrict(seen)
        return self.attention(seeds, plan, context=cells)[0]


class FaceBackbone(nn.Module):
    """ConvNeXt V2 blocks over the image of a face, halved once, pooled to a token.

    Cells that are not visible have no influence (arXiv:2301.00808, section 3).

    Args:
        num_channels: Channels of a cell.
        width: Channels C of the first blocks; the last ones have twice as many.
        dim: Features D of the token.
        stem: First convolution: of each ``patch`` of 2 x 2 cells, at a quarter of the cost of all
            that follows; 3 x 3 that keeps the ``same`` size; or the seed's of 4 x 4 with a border
            of one, which loses a row and a column, ``shrinking``.
        pool: How the image becomes 16 vectors: by ``attention`` of learned vectors, by ``adaptive``
            means over 4 x 4 areas, or by ``bilinear`` interpolation to 4 x 4 points, which reads 64
            cells and skips the others, as the seed does.
        attention: What the last block does to its channels.
        drop_path: Probability of dropping a block.
        masking: How blocks leave out cells, see `ConvNeXtBlock`.
    """

    def __init__(
        self,
        num_channels: int,
        width: int,
        dim: int,
        stem: StemName = "patch",
        pool: PoolName = "attention",
        attention: FaceAttention = "none",
        drop_path: float = 0.0,
        masking: Masking = "sparse",
    ) -> None:
        super().__init__()
        block = partial(ConvNeXtBlock, drop_path=drop_path, masking=masking)
        kernel, stride, padding = STEMS[stem]
        self.stem = MaskedConv(num_channels, width, kernel, stride, padding)
        self.stem_norm = nn.LayerNorm(width, eps=1e-6)
        self.first = nn.ModuleList(block(width) for _ in range(FIRST_BLOCKS))
        self.down_norm = nn.LayerNorm(width, eps=1e-6)
        ends = 0 if stem == "shrinking" else "same"
        self.down = MaskedConv(width, 2 * width, 2, stride=2, padding=ends)
        own = [None] * (LAST_BLOCKS - 1) + [FACE_ATTENTIONS[attention]]
        self.last = nn.ModuleList(block(2 * width, attention=made) for made in own)
        self.pool = pool
        num_slots = GRID * GRID
        self.pooling = AttentionPooling(2 * width, num_slots) if pool == "attention" else None
        size = num_slots * 2 * width
        self.project = nn.Identity() if size == dim else nn.Linear(size, dim)

    def forward(self, x: Tensor, visible: Tensor | None, position: Tensor) -> Tensor:
        """Make a token of each image.

        Args:
            x: Images (B, H, W, channels), anything where they are not visible.
            visible: Cells that are seen (B, H, W); None if all are.
            position: Where the cells are, in cm, in each of G groups of events (G, H, W, 3).

        Returns:
            (B, D)
        """
        # half precision has no room for times and small light
        with torch.autocast(x.device.type, enabled=False):
            x, visible = self.stem(x, visible)  # (B, H, W, C)
            x = self.stem_norm(x)
        for block in self.first:
            x = block(x, visible)
        x, visible = self.down(self.down_norm(x), visible)  # (B, H / 2, W / 2, 2C)
        for block in self.last:
            x = block(x, visible)
        if self.pooling is not None:
            place = _shrink(position, x.shape[1:3], self.stem.stride * 2) / POSITION_SCALE
            slots = self.pooling(x, visible, place)
            return self.project(slots.flatten(1))
        x = hide(x, visible).permute(0, 3, 1, 2)  # (B, 2C, H, W)
        if self.pool == "bilinear":
            pooled = F.interpolate(x, (GRID, GRID), mode="bilinear", align_corners=False)
        else:
            pooled = F.adaptive_avg_pool2d(x, GRID)
            if visible is not None:
                share = F.adaptive_avg_pool2d(visible.unsqueeze(1).to(x.dtype), GRID)
                pooled = pooled / share.clamp(min=1e-6)  # (B, 2C, 4, 4)
        return self.project(pooled.flatten(1))


def _all_true(tokens: Tensor) -> Tensor:
    """That all of the tokens (B, N, C) are real, (B, N)."""
    return torch.ones_like(tokens[..., 0], dtype=torch.bool)


def _shrink(position: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Mean position of the cells that each cell of a smaller image is made of, (G, H, W, 3)."""
    image = position.permute(0, 3, 1, 2)  # (G, 3, H, W)
    # Not by ceil_mode, which ONNX counts otherwise at the edge, but zeros behind and who is there.
    behind = (0, -image.shape[3] % factor, 0, -image.shape[2] % factor)
    there = F.avg_pool2d(F.pad(torch.ones_like(image[:, :1]), behind), factor)
    pooled = F.avg_pool2d(F.pad(image, behind), factor) / there
    return pooled[..., : size[0], : size[1]].permute(0, 2, 3, 1)


class HexBackbone(nn.Module):
    """Blocks over the hexagonal array of an end of the detector, averaged to a token.

    Args:
        num_channels: Channels of a sensor.
        width: Features of a node.
        dim: Features D of the token.
        mixer: How neighbours mix: a learned vector for each of the six directions, ``depthwise``,
            or attention over the neighbours, ``gat`` (arXiv:2105.14491).
        drop_path: Probability of dropping a block.
        masking: How blocks leave out nodes, see `HexNeXtBlock`.
    """

    def __init__(
        self,
        num_channels: int,
        width: int,
        dim: int,
        mixer: HexMixer = "depthwise",
        drop_path: float = 0.0,
        masking: Masking = "sparse",
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(num_channels, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            hex_block(width, mixer, drop_path, masking) for _ in range(HEX_BLOCKS)
        )
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Make a token of each array.

        Args:
            x: Nodes (B, N, channels), anything where they are not visible.
            visible: Nodes that are seen (B, N); None if all are.

        Returns:
            (B, D)
        """
        x = hide(x, visible)
        with torch.autocast(x.device.type, enabled=False):
            x = F.gelu(self.norm(self.embed(x)))  # (B, N, C)
        for block in self.blocks:
            x = block(x, visible)
        if visible is None:
            return self.project(x.mean(1))
        return self.project(masked_mean(x, visible))


def hex_block(
    dim: int, mixer: HexMixer, drop_path: float = 0.0, masking: Masking = "sparse"
) -> HexNeXtBlock:
    """A block over the hexagonal array of an end; arguments as in `HexBackbone`."""
    ends = (part.copy() for part in xec.hex_edges())  # torch wants to own them
    edges = Edges(*ends, num_nodes=len(xec.hex_face("top")))
    layer = GraphAttention if mixer == "gat" else HexDepthwise
    return HexNeXtBlock(dim, layer(dim, edges), drop_path=drop_path, masking=masking)
