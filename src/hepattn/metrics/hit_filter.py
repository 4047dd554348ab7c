"""How well a filter separates the hits of interesting particles from the others."""

# H hits, P particles, each over all events

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from hepattn.metrics.efficiency import Efficiency, efficiency

PARTICLES_PER_EVENT = 1 << 20  # room for a particle's index in its key


@dataclass(frozen=True)
class FilterFigures:
    """Figures of a hit filter at one threshold; each efficiency with its 68.3 % interval.

    Args:
        threshold: Hits with at least this score are kept.
        hit_efficiency: Kept share of the signal hits.
        hit_purity: Share of signal among the kept hits.
        particles_retained: Share of the particles that keep enough hits.
        num_hits: Hits before the filter.
        num_kept: Hits after the filter.
    """

    threshold: float
    hit_efficiency: Efficiency
    hit_purity: Efficiency
    particles_retained: Efficiency
    num_hits: int
    num_kept: int

    def scalars(self) -> dict[str, float]:
        """Return the central values by name."""
        values = asdict(self)
        return {
            name: float(value[0] if isinstance(value, Efficiency) else value)
            for name, value in values.items()
        }


class HitFilterMetrics(Metric):
    """Collect the scores of all events and answer questions about them.

    Several processes answer for all of their events together inside ``sync_context()``.

    Args:
        min_hits: How many hits a particle has to keep to count as retained.
    """

    full_state_update = False
    score: list[Tensor]
    label: list[Tensor]
    hit_key: list[Tensor]
    particle_key: list[Tensor]
    particles: list[Tensor]

    def __init__(self, min_hits: int = 3) -> None:
        super().__init__()
        self.min_hits = min_hits
        for name in ("score", "label", "hit_key", "particle_key", "particles"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        score: Tensor,
        label: Tensor,
        valid: Tensor,
        particle_index: Tensor,
        particles: Tensor,
        particle_valid: Tensor,
        event: Tensor,
    ) -> None:
        """Add a batch of B events.

        Args:
            score: Probability of being signal (B, N).
            label: True for signal (B, N).
            valid: True for real hits (B, N).
            particle_index: Index of each hit's particle in its event, -1 for none (B, N).
            particles: Particle properties (B, P, F).
            particle_valid: True for real particles (B, P).
            event: Number of each event, different for different events, below 2^43 (B).
        """
        first_key = event.unsqueeze(1) * PARTICLES_PER_EVENT  # (B, 1)
        slots = torch.arange(particles.shape[1], device=event.device)  # (P)
        hit_key = torch.where(particle_index < 0, -1, first_key + particle_index)  # (B, N)
        self.score.append(score[valid].detach().float())
        self.label.append(label[valid])
        self.hit_key.append(hit_key[valid])
        self.particle_key.append((first_key + slots)[particle_valid])
        self.particles.append(particles[particle_valid])

    def scores(self) -> tuple[Tensor, Tensor]:
        """Return the scores (H) and labels (H) of all real hits."""
        return dim_zero_cat(self.score), dim_zero_cat(self.label)

    def auc(self) -> Tensor:
        """Return the area under the ROC curve."""
        score, label = self.scores()
        return binary_auroc(score, label.int())

    compute = auc

    def has_signal(self) -> bool:
        """Return whether any hit is signal."""
        return bool(self.scores()[1].any())

    def threshold_for(self, hit_efficiency: float) -> float:
        """Return the highest threshold that keeps at least this share of the signal hits.

        Args:
            hit_efficiency: Wanted share, in (0, 1].

        Raises:
            ValueError: If there is no signal hit.
        """
        score, label = self.scores()
        signal = score[label].sort(descending=True).values
        if len(signal) == 0:
            raise ValueError("no signal hits: a threshold can't be chosen; loosen the selection")
        num_kept = int(torch.tensor(hit_efficiency, dtype=torch.float64).mul(len(signal)).ceil())
        return float(signal[max(num_kept, 1) - 1])

    def retained(self, threshold: float) -> Tensor:
        """Return for each particle (P) whether it keeps enough hits."""
        kept = dim_zero_cat(self.score) >= threshold
        hit_key, particle_key = dim_zero_cat(self.hit_key), dim_zero_cat(self.particle_key)
        if len(particle_key) == 0:
            return particle_key.bool()
        order = particle_key.argsort()
        kept_key = hit_key[kept & (hit_key >= 0)]
        place = order[torch.searchsorted(particle_key[order], kept_key)]
        num_hits = torch.zeros_like(particle_key).index_add_(0, place, torch.ones_like(kept_key))
        return num_hits >= self.min_hits

    def figures(self, threshold: float) -> FilterFigures:
        """Count at a threshold."""
        score, label = self.scores()
        kept = score >= threshold
        num_signal_kept = int((kept & label).sum())
        retained = self.retained(threshold)
        return FilterFigures(
            threshold=threshold,
            hit_efficiency=efficiency(num_signal_kept, int(label.sum())),
            hit_purity=efficiency(num_signal_kept, int(kept.sum())),
            particles_retained=efficiency(int(retained.sum()), len(retained)),
            num_hits=len(score),
            num_kept=int(kept.sum()),
        )
