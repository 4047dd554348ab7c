"""Pairs of hits that a track from near the beam line could have left."""

# B events, N hits, F features, M anchors, W neighbours in φ, K doublets of an anchor, C columns,
# D features of a doublet

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.ops.sort import take
from hepattn.physics.helix import CURVATURE_CONSTANT

MIN_STEP = 3.0
"""Hits of one doublet are at least this far apart in r, in mm; closer ones share a layer."""


NUM_COLUMNS = 14
"""What `Doublets.columns` holds of each."""


class Doublets(NamedTuple):
    """The likeliest doublets of some hits, the anchors.

    Attributes:
        partner: The other hit of each, as its place in the event (B, M, K).
        valid: False where an anchor has fewer than K doublets (B, M, K).
        bend: Curvature of the circle through both hits and the beam line, 1 for the wanted pT with
            either sign (B, M, K).
        slope: Pseudorapidity of the line through both hits (B, M, K).
        columns: What a network embeds of them, of order one (B, M, K, C).
    """

    partner: Tensor
    valid: Tensor
    bend: Tensor
    slope: Tensor
    columns: Tensor

    def pick(self, place: Tensor) -> "Doublets":
        """Keep some of each anchor's doublets, by their places (B, M, k)."""
        index = place.unsqueeze(-1).expand(*place.shape, self.columns.shape[-1])
        return Doublets(
            *(part.gather(2, place) for part in self[:-1]), self.columns.gather(2, index)
        )


@dataclass(frozen=True)
class DoubletFinder:
    """Find the K likeliest doublets of each anchor among its neighbours in φ.

    A doublet is likely if the circle through it and the beam line bends little, if the line through
    it meets the beam line near the middle of the detector, and if it is short, since the number of
    accidental ones grows with the square of the step in r. Tails are long, so that doublets of
    particles that come from elsewhere are found, too. Only differences of φ count, so that
    a rotated event has the same doublets.

    Args:
        num_doublets: Number K.
        num_neighbours: How many hits, half of them at smaller φ, are looked at (W).
        min_pt: Transverse momentum of a doublet of ``bend`` 1, in GeV.
        field: Magnetic field along z in tesla.
        length: Where along the beam line particles start: the scale of the tails, in mm.

    Raises:
        ValueError: If a number is not positive, or there are fewer neighbours than doublets.
    """

    num_doublets: int = 24
    num_neighbours: int = 256
    min_pt: float = 1.0
    field: float = 2.0
    length: float = 80.0

    def __post_init__(self) -> None:
        for name in ("num_doublets", "min_pt", "field", "length"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        if self.num_neighbours < self.num_doublets or self.num_neighbours % 2:
            raise ValueError(
                f"num_neighbours={self.num_neighbours} must be even and at least "
                f"num_doublets={self.num_doublets}"
            )

    @property
    def max_curvature(self) -> float:
        """Change of φ with r of a doublet of ``bend`` 1, per mm."""
        return CURVATURE_CONSTANT * self.field / (2 * self.min_pt)

    @torch.no_grad()
    def __call__(
        self, phi: Tensor, r: Tensor, z: Tensor, valid: Tensor, anchor: Tensor
    ) -> Doublets:
        """Find the doublets, in float32 whatever the autocast.

        Args:
            phi: Azimuth of the hits, ascending among the real ones of an event (B, N).
            r: Their distance from the beam line in mm (B, N).
            z: Their place along it in mm (B, N).
            valid: True for real hits (B, N), real ones first.
            anchor: Places of the anchors (B, M).
        """
        with torch.autocast(phi.device.type, enabled=False):
            neighbour, seen = self._neighbours(anchor, valid)  # (B, M, W)
            hits = torch.stack([phi, r, z], -1).float()  # (B, N, 3)
            here = _take(hits, anchor).unsqueeze(2)  # (B, M, 1, 3)
            turn, step, rise = _differences(here, _take(hits, neighbour))
            seen = seen & (step.abs() > MIN_STEP)
            step = torch.where(seen, step, MIN_STEP)
            bend = turn / (step * self.max_curvature)
            start = (here[..., 2] - here[..., 1] * rise / step) / self.length
            cost = (1 + bend.square()) * (1 + start.square()) * (step.abs() + 6).square()
            cost = cost.masked_fill(~seen, math.inf)
            num = min(self.num_doublets, cost.shape[-1])
            best = cost.topk(num, dim=-1, largest=False).indices  # (B, M, K)
            partner, seen = neighbour.gather(2, best), seen.gather(2, best)
            turn, step, rise, bend, start = (
                part.gather(2, best) for part in (turn, step, rise, bend, start)
            )
            there = _take(hits, partner)[..., 1]  # (B, M, K)
            columns = _columns(turn, step, rise, bend, start, here[..., 1].expand_as(there), there)
            columns = columns.masked_fill(~seen.unsqueeze(-1), 0.0)
            return Doublets(partner, seen, bend, (rise / step).asinh(), columns)

    def _neighbours(self, anchor: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Places of the neighbours, cyclic in each event, and whether each is there, once."""
        half = self.num_neighbours // 2
        offset = torch.arange(-half, half, device=anchor.device)  # (W,)
        offset = torch.where(offset < 0, offset, offset + 1)  # a hit is no neighbour of itself
        count = valid.sum(1).clamp(min=1)[:, None, None]  # (B, 1, 1)
        place = (anchor.unsqueeze(-1) + offset).remainder(count)  # (B, M, W)
        # In a small event the window would meet a hit twice, or the anchor itself.
        seen = (offset > -((count + 1) // 2)) & (offset <= count // 2)  # (B, 1, W)
        return place, seen & valid.gather(1, anchor).unsqueeze(-1)


class DoubletEmbedding(nn.Module):
    """Add up linear maps of a doublet's two hits and of its own columns.

    Args:
        num_features: Features of a hit.
        dim: Features D of a doublet.
    """

    def __init__(self, num_features: int, dim: int) -> None:
        super().__init__()
        self.anchor = nn.Linear(num_features, dim)
        self.partner = nn.Linear(num_features, dim, bias=False)
        self.doublet = nn.Linear(NUM_COLUMNS, dim, bias=False)

    def forward(self, hits: Tensor, anchor: Tensor, doublets: Doublets) -> Tensor:
        """Embed the doublets.

        Args:
            hits: Features of all hits of the event (B, N, F).
            anchor: Those of the anchors (B, M, F).
            doublets: Doublets of the anchors.

        Returns:
            (B, M, K, D)
        """
        partner = _take(self.partner(hits), doublets.partner)
        return self.anchor(anchor).unsqueeze(2) + partner + self.doublet(doublets.columns)


def _take(x: Tensor, place: Tensor) -> Tensor:
    """Pick x[b, place[b, ...]] from (B, N, C), (B, ..., C)."""
    return take(x, place.flatten(1)).unflatten(1, place.shape[1:])


def _differences(here: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differences of φ, in [-π, π), of r and of z."""
    turn, step, rise = (there - here).unbind(-1)
    return torch.remainder(turn + math.pi, 2 * math.pi) - math.pi, step, rise


def _columns(
    turn: Tensor,
    step: Tensor,
    rise: Tensor,
    bend: Tensor,
    start: Tensor,
    here: Tensor,
    there: Tensor,
) -> Tensor:
    """What a network embeds: all of order one, with logarithmic tails."""
    angle = turn / step  # per mm
    return torch.stack(
        [
            bend.clamp(-3, 3) / 1.5,
            bend.asinh(),
            bend.abs().clamp(max=3),
            start.asinh(),
            (rise / step).asinh() / 2,
            step.sign(),
            step.abs().log() / 2 - 1.5,
            rise.abs().log1p() / 2 - 2,
            (100 * turn).asinh() / 2,
            (angle * here * there / 10).asinh(),  # impact parameter of a straight track
            3 * (angle * here).clamp(-1, 1),  # angle to the radial direction, at either hit
            3 * (angle * there).clamp(-1, 1),
            30 / here.clamp(min=1),
            30 / there.clamp(min=1),
        ],
        -1,
    )
