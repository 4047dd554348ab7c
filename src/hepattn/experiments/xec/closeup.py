"""The inner face around its brightest sensor, cell by cell."""

# B events, N cells, C channels of a sensor, D features of a token

import torch
from torch import Tensor, nn

HIDDEN = 256


class Closeup(nn.Module):
    """A dense network on the cells around the brightest sensor, where all events look alike.

    It sees which share of the light each cell has. So it can tell how far the photon is from the
    brightest sensor to a fraction of the sensor's size, which blocks that normalise the channels of
    each cell, and pooling, lose.

    Args:
        num_channels: Channels C of a sensor; the first of them, the photons, is replaced.
        size: Rows and columns of cells.
        dim: Features D of the token.
    """

    def __init__(self, num_channels: int, size: int, dim: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(size * size * num_channels, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, dim)
        )

    def forward(self, light: Tensor, visible: Tensor, channels: Tensor) -> Tensor:
        """Make a token.

        Args:
            light: Photons (B, N), zero where they are not visible.
            visible: Cells that are seen (B, N).
            channels: Scaled photons and times of the cells (B, N, C), anything where they are not.

        Returns:
            (B, D)
        """
        with torch.autocast(light.device.type, enabled=False):
            total = light.sum(1, keepdim=True).clamp(min=1e-6)
            share = (light * (light.shape[1] / total)).sqrt()  # (B, N), of order one
            cells = torch.cat([share.unsqueeze(-1), channels[..., 1:]], -1)
            return self.network(torch.where(visible.unsqueeze(-1), cells, 0.0).flatten(1))
