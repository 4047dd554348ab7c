"""The encoder, and a head that fills in sensors."""

# B events, S sensors, O channels to fill in

from typing import Literal

import torch
from torch import Tensor, nn

from hepattn.experiments.xec.encoder import EncoderOptions, XecEncoder
from hepattn.experiments.xec.face_heads import FacesHead
from hepattn.experiments.xec.sensor_head import SensorsHead

HeadName = Literal["faces", "sensors"]


class XecInpainter(nn.Module):
    """The encoder, and a head that fills in sensors.

    Args:
        encoder: What the encoder is made of.
        head: Whether ``faces`` are filled in as images, all sensors of them, or single ``sensors``
            from their neighbours.
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
