"""A decoder for each face: from its token to what all its sensors saw."""

# B events, S sensors, H rows, W columns, N nodes, C channels, D features of a token

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.experiments.xec.backbone import HexMixer, hex_block
from hepattn.experiments.xec.encoder import EncoderOptions, XecEncoder
from hepattn.experiments.xec.faces import HEX_FACES
from hepattn.physics import xec

START = 4  # rows and columns that a decoder begins with
HEX_BLOCKS = 2


class FaceDecoder(nn.Module):
    """Transposed convolutions from a token to an image.

    Args:
        dim: Features D of the token.
        width: Channels after the first of them.
        size: Rows and columns of the image.
        num_channels: Channels C of the image.
    """

    def __init__(self, dim: int, width: int, size: tuple[int, int], num_channels: int) -> None:
        super().__init__()
        self.size = size
        self.start = nn.Linear(dim, 2 * width * START * START)
        self.first = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.first_norm = nn.LayerNorm(width)
        self.second = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        self.second_norm = nn.LayerNorm(width // 2)
        self.last = nn.ConvTranspose2d(width // 2, num_channels, 2, stride=2)

    def forward(self, token: Tensor) -> Tensor:
        """Decode tokens (B, D) to images (B, H, W, C)."""
        x = self.start(token).unflatten(1, (-1, START, START))  # (B, 2 width, 4, 4)
        for up, norm in ((self.first, self.first_norm), (self.second, self.second_norm)):
            x = F.gelu(norm(up(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)  # twice the size
        x = self.last(x)  # (B, C, 32, 32)
        x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        return x.permute(0, 2, 3, 1)


class HexDecoder(nn.Module):
    """From a token to the sensors of an end, which know their places.

    Args:
        dim: Features D of the token.
        width: Features of a node.
        num_channels: Channels C of a sensor.
        mixer: How neighbours mix.
    """

    no_weight_decay = ("place",)

    def __init__(self, dim: int, width: int, num_channels: int, mixer: HexMixer) -> None:
        super().__init__()
        num_nodes = len(xec.hex_face("top"))
        self.start = nn.Linear(dim, width)
        self.place = nn.Parameter(0.02 * torch.randn(num_nodes, width))
        self.blocks = nn.ModuleList(hex_block(width, mixer) for _ in range(HEX_BLOCKS))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, num_channels)

    def forward(self, token: Tensor) -> Tensor:
        """Decode tokens (B, D) to nodes (B, N, C)."""
        x = self.start(token).unsqueeze(1) + self.place  # (B, N, width)
        for block in self.blocks:
            x = block(x, None)
        return self.last(self.norm(x))


class XecAutoencoder(nn.Module):
    """The encoder, and a decoder for each of its tokens.

    Args:
        encoder: What the encoder is made of.
        decoder_width: Channels of the decoders; 128 in the seed.
        num_channels: Scaled photons alone (1), or times, too (2).
    """

    def __init__(self, encoder: EncoderOptions, decoder_width: int, num_channels: int) -> None:
        super().__init__()
        self.encoder = XecEncoder(encoder)
        faces = self.encoder.faces
        self.images = nn.ModuleList(
            FaceDecoder(encoder.dim, decoder_width, tuple(faces.index(name).shape), num_channels)
            for name in faces.images
        )
        self.ends = nn.ModuleList(
            HexDecoder(encoder.dim, decoder_width, num_channels, encoder.hex_mixer)
            for _ in HEX_FACES
        )

    @property
    def covered(self) -> Tensor:
        """Sensors that are reconstructed (S)."""
        return self.encoder.faces.covered

    def forward(self, photons: Tensor, time: Tensor, valid: Tensor, time_valid: Tensor) -> Tensor:
        """Reconstruct all sensors from the visible ones.

        Args:
            photons: Photons (B, S), anything where they are not visible.
            time: Times in ns (B, S), anything where they are not visible.
            valid: Visible sensors (B, S).
            time_valid: Sensors with a visible time (B, S).

        Returns:
            Scaled photons and times (B, S, C).
        """
        tokens = self.encoder(photons, time, valid, time_valid).tokens.unbind(1)
        decoders = [*self.images, *self.ends]
        # the last token may be of a closeup, which shows what other images do
        decoded = [decode(token) for decode, token in zip(decoders, tokens, strict=False)]
        num_images = len(self.images)
        ends = torch.stack(decoded[num_images:], 1)  # (B, 2, N, C)
        return self.encoder.faces.to_sensors(decoded[:num_images], ends)
