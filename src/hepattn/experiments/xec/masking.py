"""Which sensors are hidden from the network, so that it learns to tell what they saw."""

# B events, S sensors

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hepattn.physics import xec

Shape = Literal["uniform", "clustered", "flat"]
LIGHT_BINS = 20  # of the logarithm of photons, for `flat`
MAX_LOG_LIGHT = 12.0


@dataclass(frozen=True)
class MaskOptions:
    """How sensors to hide are drawn, among those that are known.

    Args:
        ratio: Share that is hidden, for each face or for all sensors together.
        face_ratios: Shares of single faces by name; other faces have ``ratio``.
        shape: ``uniform``: each for itself; ``clustered``: those nearest to a few random ones on
            a face, as a broken readout group; ``flat``: as many in each bin of the logarithm of
            their light, so that the few bright ones are not forgotten.
        num_clusters: Clusters on a face, or on all faces together.
        bright_factor: How much likelier bright sensors are drawn than others, if ``uniform``.
        bright: Photons from which on a sensor is bright.

    Raises:
        ValueError: If a number is out of range or a face is unknown.
    """

    ratio: float = 0.6
    face_ratios: dict[str, float] = field(default_factory=dict)
    shape: Shape = "uniform"
    num_clusters: int = 8
    bright_factor: float = 1.0
    bright: float = 100.0

    def __post_init__(self) -> None:
        for name, ratio in {"ratio": self.ratio, **self.face_ratios}.items():
            if not 0 <= ratio < 1:
                raise ValueError(f"{name}={ratio} must be at least 0 and below 1")
        if unknown := sorted(set(self.face_ratios) - set(xec.FACES)):
            raise ValueError(f"face_ratios names {unknown}; faces are {', '.join(xec.FACES)}")
        if self.num_clusters < 1 or self.bright_factor <= 0:
            raise ValueError(
                f"num_clusters={self.num_clusters} must be at least 1 and "
                f"bright_factor={self.bright_factor} positive"
            )


class MaskSampler:
    """Draw the sensors to hide.

    Args:
        options: How.
    """

    def __init__(self, options: MaskOptions) -> None:
        self.options = options
        sensors = xec.sensors()
        self.position = torch.from_numpy(np.array(sensors.position, np.float32))
        self.face = torch.from_numpy(np.array(sensors.face, np.int64))

    def __call__(self, photons: Tensor, valid: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw.

        Args:
            photons: Photons (B, S).
            valid: Sensors among which to draw (B, S).
            noise: Numbers between 0 and 1 that decide (B, S); random by default.

        Returns:
            True for those to hide (B, S).
        """
        if noise is None:
            noise = torch.rand(valid.shape, device=valid.device)
        key = self._keys(photons, valid, noise).masked_fill(~valid, torch.inf)
        hidden = torch.zeros_like(valid)
        for sensors, ratio in self._groups(valid.device):
            own, known = key[:, sensors], valid[:, sensors]
            rank = own.argsort(1).argsort(1)
            # The seed's int(), but not of 0.6 * 10 = 5.999...
            number = (known.sum(1, keepdim=True) * ratio + 1e-6).floor()
            hidden[:, sensors] = rank < number
        return hidden

    def _groups(self, device: torch.device) -> list[tuple[Tensor, float]]:
        """Sensors among which shares are counted, and the share."""
        options = self.options
        if not options.face_ratios:
            return [(torch.arange(len(self.face), device=device), options.ratio)]
        return [
            (
                (self.face == number).nonzero()[:, 0].to(device),
                options.face_ratios.get(name, options.ratio),
            )
            for number, name in enumerate(xec.FACES)
        ]

    def _keys(self, photons: Tensor, valid: Tensor, noise: Tensor) -> Tensor:
        """The sensors of smallest key are hidden."""
        options = self.options
        if options.shape == "clustered":
            return self._distances(valid, noise)
        weight = torch.ones_like(noise)
        if options.shape == "flat":
            light = photons.clamp(min=0).log1p() / MAX_LOG_LIGHT
            place = (light * LIGHT_BINS).long().clamp(max=LIGHT_BINS - 1)  # (B, S)
            count = torch.zeros(len(place), LIGHT_BINS, device=place.device)
            count = count.scatter_add(1, place, valid.float())
            weight = 1 / count.gather(1, place).clamp(min=1)
        elif options.bright_factor != 1:
            weight = torch.where(photons > options.bright, options.bright_factor, 1.0)
        # Exponential numbers over weights are drawn without replacement by their order.
        return -noise.clamp(min=1e-12).log() / weight

    def _distances(self, valid: Tensor, noise: Tensor) -> Tensor:
        """Distance in cm of each sensor from the nearest centre on its face, (B, S)."""
        position, face = self.position.to(noise.device), self.face.to(noise.device)
        groups = [sensors for sensors, _ in self._groups(noise.device)]
        key = torch.full_like(noise, torch.inf)
        for sensors in groups:
            drawn = noise[:, sensors].masked_fill(~valid[:, sensors], torch.inf)
            num = min(self.options.num_clusters, len(sensors))
            centre = sensors[drawn.topk(num, largest=False).indices]  # (B, K)
            apart = torch.cdist(position[centre], position[sensors].expand(len(noise), -1, -1))
            other = face[centre].unsqueeze(-1) != face[sensors]  # (B, K, sensors)
            key[:, sensors] = (apart + 1e3 * other).amin(1)
        return key


def event_noise(events: Sequence[int], num_sensors: int, device: torch.device) -> Tensor:
    """Numbers between 0 and 1 that depend on the event alone, so that evaluations agree.

    Args:
        events: Numbers of the events (B).
        num_sensors: Number S of sensors.
        device: Where they are wanted.

    Returns:
        (B, S)
    """
    rows = [torch.rand(num_sensors, generator=torch.Generator().manual_seed(e)) for e in events]
    return torch.stack(rows).to(device)
