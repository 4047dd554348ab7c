"""From the encoder's tokens and what is around a sensor to what the sensor saw."""

# B events, S sensors, M sensors to fill in, K neighbours, T tokens, D features of a token,
# C channels of a sensor, O channels to fill in, H rows, W columns, N nodes

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.experiments.xec.backbone import HexMixer, hex_block
from hepattn.experiments.xec.encoder import Encoded, EncoderOptions, XecEncoder
from hepattn.experiments.xec.faces import HEX_FACES, Faces
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.conv import ConvNeXtBlock
from hepattn.nn.gathering import gather_objects
from hepattn.nn.positional import Coordinate, SinusoidalEncoding
from hepattn.ops.attention import Full, make_plan
from hepattn.physics import xec

HeadName = Literal["faces", "sensors"]
BANDS = 16  # features for each axis: eight frequencies, the finest of 6 cm
NUM_NEIGHBOURS = 16


class ImageHead(nn.Module):
    """Fill in an image from its token and from what is visible of it.

    Args:
        dim: Features D of the token.
        num_channels: Channels C of a cell.
        num_outputs: Channels O to fill in.
        width: Features of a cell inside.
    """

    def __init__(self, dim: int, num_channels: int, num_outputs: int, width: int) -> None:
        super().__init__()
        self.token = nn.Linear(dim, width)
        self.mix = nn.Conv2d(width + num_channels, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width) for _ in range(2))
        self.narrow = nn.Conv2d(width, width // 2, 3, padding=1)
        self.last = nn.Linear(width // 2, num_outputs)

    def forward(self, token: Tensor, cells: Tensor) -> Tensor:
        """Fill in.

        Args:
            token: Of the face (B, D).
            cells: What is visible of it (B, H, W, C).

        Returns:
            (B, H, W, O)
        """
        latent = F.gelu(self.token(token))[:, None, None].expand(*cells.shape[:3], -1)
        x = torch.cat([latent, cells], -1).permute(0, 3, 1, 2)  # (B, width + C, H, W)
        x = F.gelu(self.norm(self.mix(x))).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, None)
        x = F.gelu(self.narrow(x.permute(0, 3, 1, 2)))
        return self.last(x.permute(0, 2, 3, 1))


class FineHead(nn.Module):
    """Fill in the sensors of the fine grid: each asks the cells over which its light is spread.

    Args:
        dim: Features D of the token.
        num_channels: Channels C of a cell.
        num_outputs: Channels O to fill in.
        faces: With the fine grid.
        width: Features of a cell inside.
    """

    def __init__(
        self, dim: int, num_channels: int, num_outputs: int, faces: Faces, width: int
    ) -> None:
        super().__init__()
        self.image = ImageHead(dim, num_channels, width, width)
        self.score = nn.Parameter(torch.zeros(faces.index("fine").numel()))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            nn.GELU(),
            nn.Linear(width, num_outputs),
        )
        self.register_buffer("sensor", faces.fine_sensor.clone(), persistent=False)

    def forward(self, token: Tensor, cells: Tensor) -> Tensor:
        """Fill in each cell with what its sensor saw; see `ImageHead.forward`."""
        image = self.image(token, cells)  # (B, H, W, width)
        height, width = image.shape[1:3]
        share = (self.score - self.score.max()).exp()
        total = torch.zeros_like(share).index_add(0, self.sensor, share)[self.sensor]
        weighted = image.flatten(1, 2) * (share / total).unsqueeze(-1)  # (B, H W, width)
        num_sensors = int(self.sensor.max()) + 1
        pooled = weighted.new_zeros(len(image), num_sensors, weighted.shape[-1])
        pooled = pooled.index_add(1, self.sensor, weighted)  # (B, sensors, width)
        return self.mlp(pooled)[:, self.sensor].unflatten(1, (height, width))


class HexHead(nn.Module):
    """Fill in the sensors of an end.

    Args:
        dim: Features D of the token.
        num_channels: Channels C of a sensor.
        num_outputs: Channels O to fill in.
        mixer: How neighbours mix.
        width: Features of a node inside.
    """

    def __init__(
        self,
        dim: int,
        num_channels: int,
        num_outputs: int,
        mixer: HexMixer,
        width: int,
    ) -> None:
        super().__init__()
        self.token = nn.Linear(dim, width)
        self.mix = nn.Linear(width + num_channels, width)
        self.blocks = nn.ModuleList(hex_block(width, mixer) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, num_outputs)
        )

    def forward(self, token: Tensor, nodes: Tensor) -> Tensor:
        """Fill in.

        Args:
            token: Of each end (B, 2, D).
            nodes: What is visible (B, 2, N, C).

        Returns:
            (B, 2, N, O)
        """
        latent = F.gelu(self.token(token)).unsqueeze(2).expand(*nodes.shape[:3], -1)
        x = self.mix(torch.cat([latent, nodes], -1)).flatten(0, 1)  # (B 2, N, width)
        for block in self.blocks:
            x = block(x, None)
        return self.mlp(self.norm(x)).unflatten(0, nodes.shape[:2])


class FacesHead(nn.Module):
    """Fill in all sensors, face by face, as images.

    Args:
        options: The encoder's.
        faces: Its faces.
        num_outputs: Channels O to fill in.
        width: Features of a cell inside; those of a node at the ends are half as many again.
    """

    def __init__(self, options: EncoderOptions, faces: Faces, num_outputs: int, width: int) -> None:
        super().__init__()
        shape = (options.dim, options.scaling.num_channels, num_outputs)
        self.images = nn.ModuleDict({"image": ImageHead(*shape, width)})
        if "fine" in faces.images:
            self.images["fine"] = FineHead(*shape, faces, width)
        self.ends = HexHead(*shape, options.hex_mixer, width * 3 // 2)

    def forward(self, encoded: Encoded, faces: Faces, visible: Tensor, wanted: Tensor) -> Tensor:
        """Fill in all sensors, whatever is wanted, (B, S, O)."""
        images = []
        for place, name in enumerate(faces.images):
            head = self.images["fine" if name == "fine" else "image"]
            images.append(head(encoded.tokens[:, place], faces.image(encoded.channels, name)))
        first = len(faces.images)
        ends = encoded.tokens[:, first : first + len(HEX_FACES)]
        return faces.to_sensors(images, self.ends(ends, faces.nodes(encoded.channels)))


class SensorsHead(nn.Module):
    """Let each sensor to fill in ask its neighbours in space, then the tokens of all faces.

    Args:
        options: The encoder's.
        num_outputs: Channels O to fill in.
        width: Features of a query and of a neighbour.
    """

    def __init__(self, options: EncoderOptions, num_outputs: int, width: int) -> None:
        super().__init__()
        sensors = xec.sensors()
        position = torch.from_numpy(np.array(sensors.position, np.float32))  # (S, 3)
        apart = torch.cdist(position, position).fill_diagonal_(torch.inf)
        nearest = apart.topk(NUM_NEIGHBOURS, largest=False).indices  # (S, K)
        self.register_buffer("neighbour", nearest, persistent=False)
        axes = [Coordinate(axis) for axis in "xyz"]  # cm
        encode = SinusoidalEncoding(3 * BANDS, axes, alpha=2 * math.pi / 6, base=32.0)
        self.register_buffer("place", encode(position.unsqueeze(0))[0], persistent=False)
        face = torch.from_numpy(np.array(sensors.face, np.int64))
        self.register_buffer("face", face, persistent=False)
        self.kind = nn.Embedding(len(xec.FACES), width // 2)
        size = 3 * BANDS + width // 2
        self.query = nn.Linear(size, width)
        self.seen = nn.Linear(options.scaling.num_channels, width)
        self.there = nn.Linear(size, width, bias=False)
        self.tokens = nn.Linear(options.dim, width)
        heads = AttentionOptions(num_heads=4)
        self.local, self.across = (Attention(width, heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, num_outputs)
        )

    def forward(self, encoded: Encoded, faces: Faces, visible: Tensor, wanted: Tensor) -> Tensor:
        """Fill in the sensors that are wanted, (B, S, O); the others are zero."""
        gathering = gather_objects(wanted)
        identity = torch.cat([self.place, self.kind(self.face)], -1)  # (S, size)
        sensor = torch.arange(wanted.shape[1], device=wanted.device).expand_as(wanted)
        sensor = gathering.move(sensor)  # (B, M)
        x = self.query(identity)[sensor]  # (B, M, width)
        seen = self.seen(encoded.channels) + self.there(identity)  # (B, S, width)
        x = x + self._ask_neighbours(self.norms[0](x), seen, sensor, visible)
        plan = make_plan(
            Full(), torch.ones_like(encoded.tokens[..., 0], dtype=torch.bool), gathering.valid
        )
        tokens = self.tokens(encoded.tokens)
        x = x + self.across(self.norms[1](x), plan, context=tokens)[0]
        filled = self.mlp(self.norms[2](x))  # (B, M, O)
        filled = torch.where(gathering.valid.unsqueeze(-1), filled, 0.0)
        empty = filled.new_zeros(*wanted.shape, filled.shape[-1])
        return empty.scatter_add(1, sensor.unsqueeze(-1).expand_as(filled), filled)

    def _ask_neighbours(self, x: Tensor, seen: Tensor, sensor: Tensor, visible: Tensor) -> Tensor:
        """What each sensor (B, M) learns from its visible neighbours, (B, M, width)."""
        neighbour = self.neighbour[sensor]  # (B, M, K)
        events = torch.arange(len(seen), device=seen.device).view(-1, 1, 1)
        context = seen[events, neighbour].flatten(0, 1)  # (B M, K, width)
        there = visible[events, neighbour].flatten(0, 1).unsqueeze(1)  # (B M, 1, K)
        everything = torch.ones_like(there)
        plan = make_plan(Full(), everything[:, 0], everything[..., 0]).restrict(there)
        asked, _ = self.local(x.flatten(0, 1).unsqueeze(1), plan, context=context)
        return asked.squeeze(1).unflatten(0, sensor.shape)


class XecInpainter(nn.Module):
    """The encoder, and a head that fills in sensors.

    Args:
        encoder: What the encoder is made of.
        head: Whether ``faces`` are filled in as images, all sensors of them, or single ``sensors``
            from their neighbours in space.
        num_outputs: Scaled photons alone (1), or times, too (2).
        width: Features inside the head, a multiple of 8; 64 in the seed.

    Raises:
        ValueError: If the width is no such number.
    """

    def __init__(
        self, encoder: EncoderOptions, head: HeadName, num_outputs: int, width: int = 32
    ) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"head_width={width} must be a multiple of 8")
        self.encoder = XecEncoder(encoder)
        self.head = (
            FacesHead(encoder, self.encoder.faces, num_outputs, width)
            if head == "faces"
            else SensorsHead(encoder, num_outputs, width)
        )
        self.fills_all = head == "sensors"

    @property
    def covered(self) -> Tensor:
        """Sensors that can be filled in (S)."""
        covered = self.encoder.faces.covered
        return torch.ones_like(covered) if self.fills_all else covered

    def forward(
        self, photons: Tensor, time: Tensor, valid: Tensor, time_valid: Tensor, wanted: Tensor
    ) -> Tensor:
        """Fill in sensors.

        Args:
            photons: Photons (B, S), anything where they are not visible.
            time: Times in ns (B, S), anything where they are not visible.
            valid: Visible sensors (B, S).
            time_valid: Sensors with a visible time (B, S).
            wanted: Sensors to fill in (B, S).

        Returns:
            Scaled photons and times (B, S, O), 0 where they are not wanted.
        """
        encoded = self.encoder(photons, time, valid, time_valid)
        filled = self.head(encoded, self.encoder.faces, valid, wanted)
        return torch.where(wanted.unsqueeze(-1), filled, 0.0)
