"""Fill in whole faces as images, from their tokens and from what is visible of them."""

# B events, S sensors, D features of a token, C channels of a sensor, O channels to fill in, H rows,
# W columns, N nodes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.experiments.xec.backbone import HexMixer, hex_block
from hepattn.experiments.xec.encoder import Encoded, EncoderOptions
from hepattn.experiments.xec.faces import HEX_FACES, Faces
from hepattn.nn.conv import ConvNeXtBlock


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
        self.num_sensors = faces.num_fine
        self.register_buffer("sensor", faces.fine_sensor.clone(), persistent=False)

    def forward(self, token: Tensor, cells: Tensor) -> Tensor:
        """Fill in each cell with what its sensor saw; see `ImageHead.forward`."""
        image = self.image(token, cells)  # (B, H, W, width)
        height, width = image.shape[1:3]
        share = (self.score - self.score.max()).exp()
        total = torch.zeros_like(share).index_add(0, self.sensor, share)[self.sensor]
        weighted = image.flatten(1, 2) * (share / total).unsqueeze(-1)  # (B, H W, width)
        pooled = weighted.new_zeros(image.shape[0], self.num_sensors, weighted.shape[-1])
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
