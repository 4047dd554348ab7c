"""How far a reconstruction is from what hidden sensors saw."""

# B events, S sensors

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.ops.distributed import mean_over_processes
from hepattn.physics import xec

Distance = Literal["smooth_l1", "l1", "mse"]


@dataclass(frozen=True)
class ReconstructionOptions:
    """What the loss of a reconstruction weighs.

    Args:
        distance: Between a scaled number and the truth.
        beta: Where ``smooth_l1`` turns from a square to a line.
        average: Over the hidden sensors of each ``face``, and these added up, or over all hidden
            ``sensors`` together.
        photon_weight: Weight of the photons.
        time_weight: Weight of the times, which count as the root of a sensor's photons.
        light_power: Sensors count as this power of their photons plus one; 0 makes them equal.
        learned: Whether a learned variance for photons and one for times balances them:
            ½ e^-s L + ½ s (arXiv:1705.07115).

    Raises:
        ValueError: If a number is negative, or no term is left.
    """

    distance: Distance = "smooth_l1"
    beta: float = 0.1
    average: Literal["face", "sensors"] = "sensors"
    photon_weight: float = 1.0
    time_weight: float = 1.0
    light_power: float = 0.0
    learned: bool = False

    def __post_init__(self) -> None:
        for name in ("photon_weight", "time_weight", "light_power"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.beta <= 0:
            raise ValueError(f"beta={self.beta} must be positive")
        if not self.photon_weight + self.time_weight:
            raise ValueError("photon_weight=0 and time_weight=0 leave nothing to learn")


class ReconstructionLoss(nn.Module):
    """Distance between reconstructed and true photons and times of hidden sensors.

    Args:
        options: What counts.
    """

    face: Tensor

    def __init__(self, options: ReconstructionOptions) -> None:
        super().__init__()
        self.options = options
        face = torch.from_numpy(xec.sensors().face.copy()).long()
        self.register_buffer("face", F.one_hot(face).float(), persistent=False)  # (S, 6)
        spread = nn.Parameter(torch.zeros(2)) if options.learned else None
        self.register_parameter("log_variance", spread)

    def forward(
        self,
        scaled: Tensor,
        truth: Tensor,
        photons: Tensor,
        hidden: Tensor,
        time_hidden: Tensor,
        weight: Tensor,
    ) -> dict[str, Tensor]:
        """Losses of photons and, where they are wanted, of times.

        Args:
            scaled: Reconstructed photons and, perhaps, times, both scaled (B, S, 1 or 2).
            truth: The true ones, scaled (B, S, 2).
            photons: True photons (B, S).
            hidden: Sensors whose photons count (B, S).
            time_hidden: Sensors whose times count (B, S).
            weight: Weight of each event (B).
        """
        options = self.options
        light = (photons.clamp(min=0) + 1).pow(options.light_power)
        counts = {"photons": (0, hidden, light, options.photon_weight)}
        if scaled.shape[-1] > 1:
            root = photons.clamp(min=0).sqrt()
            counts["time"] = (1, time_hidden, root, options.time_weight)
        losses = {}
        for name, (channel, where, importance, factor) in counts.items():
            if not factor:
                continue
            apart = self._distance(scaled[..., channel].float(), truth[..., channel])
            loss = self._average(apart, where, importance, weight)
            if self.log_variance is not None:
                spread = self.log_variance[channel]
                loss = 0.5 * (-spread).exp() * loss + 0.5 * spread
            losses[name] = factor * loss
        return losses

    def _distance(self, scaled: Tensor, truth: Tensor) -> Tensor:
        match self.options.distance:
            case "smooth_l1":
                return F.smooth_l1_loss(scaled, truth, reduction="none", beta=self.options.beta)
            case "l1":
                return F.l1_loss(scaled, truth, reduction="none")
            case _:
                return F.mse_loss(scaled, truth, reduction="none")

    def _average(self, apart: Tensor, where: Tensor, importance: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean over the sensors that count, of all faces or of each."""
        importance = torch.where(where, importance, 0.0) * weight.unsqueeze(1)  # (B, S)
        total = torch.where(where, apart, 0.0) * importance
        if self.options.average == "sensors":
            return total.sum() / mean_over_processes(importance.sum()).clamp(min=1e-12)
        total, importance = total.sum(0) @ self.face, importance.sum(0) @ self.face  # (6)
        return (total / mean_over_processes(importance).clamp(min=1e-12)).sum()
