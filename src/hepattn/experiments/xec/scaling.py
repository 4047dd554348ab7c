"""From photons and times to what a network sees of a sensor."""

# B events, S sensors, C channels

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Scheme = Literal["sqrt", "anscombe", "log1p", "linear"]
DOMAIN_LOG = -0.999  # of photons / photon_scale: log1p has no value at -1
ANSCOMBE = 3 / 8


@dataclass(frozen=True)
class ScalingOptions:
    """How photons and times become numbers of order one.

    Args:
        scheme: Of x photons, with s the ``photon_scale``: ``sqrt`` √(x / s), which makes the noise
            of counting alike everywhere, ``anscombe`` √(x + 3/8) / √(s + 3/8), ``log1p``
            log(1 + x / s) / ``log_scale``, or ``linear`` x / s. Below the domain of a scheme the
            value is 0.
        photon_scale: Photons s.
        log_scale: Divisor of the logarithm.
        time_scale: Divisor of times, in ns.
        time_shift: Subtracted from scaled times.
        time_reference: Times count from the photon-weighted ``mean`` of the event's times, or from
            the ``first`` one, as in the files.
        sentinels: What the network sees of photons and of times that are not known.
        validity: Whether it also sees which of them are known, as two more channels.

    Raises:
        ValueError: If a scale is not positive.
    """

    scheme: Scheme = "sqrt"
    photon_scale: float = 20_000.0
    log_scale: float = 1.0
    time_scale: float = 10.0
    time_shift: float = 0.0
    time_reference: Literal["mean", "first"] = "mean"
    sentinels: tuple[float, float] = (0.0, 0.0)
    validity: bool = True

    def __post_init__(self) -> None:
        for name in ("photon_scale", "log_scale", "time_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")

    @property
    def num_channels(self) -> int:
        """Channels C of a sensor."""
        return 4 if self.validity else 2


class SensorScaling(nn.Module):
    """Scale photons and times, in float32 whatever the autocast: half precision is 0.4 ns at 100.

    Its options travel with the weights: a checkpoint that was trained with others is refused.

    Args:
        options: How.
    """

    def __init__(self, options: ScalingOptions) -> None:
        super().__init__()
        self.options = options

    def forward(
        self, photons: Tensor, time: Tensor, valid: Tensor, time_valid: Tensor, reference: Tensor
    ) -> Tensor:
        """Make the channels of each sensor, or of each cell of an image.

        Args:
            photons: Photons (B, ...), anything where they are not known.
            time: Times in ns (B, ...), anything where they are not known.
            valid: Where photons are known (B, ...).
            time_valid: Where times are known (B, ...).
            reference: From `reference` (B).

        Returns:
            Photons, times and, with ``validity``, which of them are known (B, ..., C).
        """
        with torch.autocast(photons.device.type, enabled=False):
            options = self.options
            light = self.scale_photons(photons.float())
            since = self.scale_time(time.float(), reference.float())
            channels = [
                torch.where(valid, light, options.sentinels[0]),
                torch.where(time_valid, since, options.sentinels[1]),
            ]
            if options.validity:
                channels += [valid.float(), time_valid.float()]
            return torch.stack(channels, -1)

    def reference(self, photons: Tensor, time: Tensor, time_valid: Tensor) -> Tensor:
        """Time from which an event's times count, in ns (B); of those that are known alone.

        Args:
            photons: Photons (B, S).
            time: Times in ns (B, S).
            time_valid: Where times are known (B, S).
        """
        if self.options.time_reference == "first":
            return torch.zeros_like(time[:, 0])
        weight = torch.where(time_valid, photons, 0.0)
        total = torch.where(time_valid, photons * time, 0.0).sum(1)
        return total / weight.sum(1).clamp(min=1.0)

    def scale_photons(self, photons: Tensor) -> Tensor:
        """Scale numbers of photons of any shape."""
        options = self.options
        share = photons / options.photon_scale
        match options.scheme:
            case "sqrt":
                return share.clamp(min=0).sqrt()
            case "anscombe":
                scaled = (photons + ANSCOMBE).clamp(min=0) / (options.photon_scale + ANSCOMBE)
                return torch.where(photons < -ANSCOMBE, 0.0, scaled.sqrt())
            case "log1p":
                scaled = share.clamp(min=DOMAIN_LOG).log1p() / options.log_scale
                return torch.where(share < DOMAIN_LOG, 0.0, scaled)
            case _:
                return share

    def unscale_photons(self, scaled: Tensor) -> Tensor:
        """Photons of scaled numbers of any shape, the inverse of `scale_photons`."""
        options = self.options
        match options.scheme:
            case "sqrt":
                return scaled.clamp(min=0).square() * options.photon_scale
            case "anscombe":
                total = scaled.clamp(min=0).square() * (options.photon_scale + ANSCOMBE)
                return total - ANSCOMBE
            case "log1p":
                return (scaled * options.log_scale).expm1() * options.photon_scale
            case _:
                return scaled * options.photon_scale

    def scale_time(self, time: Tensor, reference: Tensor) -> Tensor:
        """Scale times in ns (B, ...), which count from the reference (B)."""
        since = time - reference.view(-1, *[1] * (time.ndim - 1))
        return since / self.options.time_scale - self.options.time_shift

    def unscale_time(self, scaled: Tensor, reference: Tensor) -> Tensor:
        """Times in ns of scaled ones (B, ...), the inverse of `scale_time`."""
        since = (scaled + self.options.time_shift) * self.options.time_scale
        return since + reference.view(-1, *[1] * (scaled.ndim - 1))

    def get_extra_state(self) -> dict[str, Any]:
        """The options, for the checkpoint."""
        return asdict(self.options) | {"sentinels": list(self.options.sentinels)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse weights that were trained with other options.

        Raises:
            ValueError: If they were.
        """
        ours = self.get_extra_state()
        if changed := [name for name, value in ours.items() if state.get(name) != value]:
            described = ", ".join(f"{n}={state.get(n)}, here {ours[n]}" for n in changed)
            raise ValueError(
                f"the weights were trained with another scaling of the sensors ({described}); give "
                "model.encoder.scaling the same options"
            )
