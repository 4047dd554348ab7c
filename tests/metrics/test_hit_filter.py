"""Hit filter figures against loops over events, hits and particles."""

import pytest
import torch
from scipy.stats import mannwhitneyu
from torch.testing import assert_close

from hepattn.metrics.hit_filter import HitFilterMetrics

NUM_EVENTS, NUM_HITS, NUM_PARTICLES = 6, 30, 4


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    lengths = torch.tensor([30, 12, 0, 25, 7, 30])
    valid = torch.arange(NUM_HITS) < lengths.unsqueeze(1)
    particle_index = torch.randint(-1, NUM_PARTICLES, valid.shape).masked_fill(~valid, -1)
    label = particle_index >= 0
    return {
        "score": (torch.rand(valid.shape) + 0.4 * label).clamp(max=1),
        "label": label,
        "valid": valid,
        "particle_index": particle_index,
        "particles": torch.randn(NUM_EVENTS, NUM_PARTICLES, 2),
        "particle_valid": torch.ones(NUM_EVENTS, NUM_PARTICLES).bool(),
        "event": torch.tensor([5, 3, 1000, 21001, 4, 8]),
    }


@pytest.fixture
def metrics(batch: dict) -> HitFilterMetrics:
    metrics = HitFilterMetrics(min_hits=3)
    metrics.update(**{name: value[:2] for name, value in batch.items()})
    metrics.update(**{name: value[2:] for name, value in batch.items()})
    return metrics


def test_figures_count_as_a_loop_does(metrics: HitFilterMetrics, batch: dict) -> None:
    signal = kept = both = retained = hits = 0
    for event in range(NUM_EVENTS):
        left = [0] * NUM_PARTICLES
        for hit in range(NUM_HITS):
            if batch["valid"][event, hit]:
                keep = bool(batch["score"][event, hit] >= 0.6)
                owner = int(batch["particle_index"][event, hit])
                hits, signal, kept = hits + 1, signal + (owner >= 0), kept + keep
                both += keep and owner >= 0
                if keep and owner >= 0:
                    left[owner] += 1
        retained += sum(count >= 3 for count in left)
    figures = metrics.figures(0.6)
    assert (figures.num_hits, figures.num_kept) == (hits, kept)
    assert figures.hit_efficiency.value == both / signal
    assert figures.hit_purity.value == both / kept
    assert figures.particles_retained.value == retained / (NUM_EVENTS * NUM_PARTICLES)
    assert figures.scalars()["hit_purity"] == both / kept


def test_retained_follows_the_order_of_the_particles(
    metrics: HitFilterMetrics, batch: dict
) -> None:
    expected = []
    for event in range(NUM_EVENTS):
        for particle in range(NUM_PARTICLES):
            own = batch["particle_index"][event] == particle
            expected.append(int((own & (batch["score"][event] >= 0.6)).sum()) >= 3)
    assert metrics.retained(0.6).tolist() == expected


def test_threshold_is_the_highest_that_keeps_enough_signal(metrics: HitFilterMetrics) -> None:
    for wanted in (0.5, 0.9, 0.99, 1.0):
        threshold = metrics.threshold_for(wanted)
        assert metrics.figures(threshold).hit_efficiency.value >= wanted
        assert metrics.figures(threshold + 1e-6).hit_efficiency.value < wanted


def test_area_under_the_curve_is_the_share_of_pairs_in_order(metrics: HitFilterMetrics) -> None:
    score, label = metrics.scores()
    pairs = mannwhitneyu(score[label], score[~label]).statistic
    share = pairs / (label.sum() * (~label).sum())
    assert_close(metrics.compute(), share.float(), atol=1e-6, rtol=0)


def test_no_signal_gives_a_clear_error(batch: dict) -> None:
    metrics = HitFilterMetrics()
    batch["label"][:] = False
    metrics.update(**batch)
    with pytest.raises(ValueError, match="no signal hits"):
        metrics.threshold_for(0.99)


def test_events_without_particles_retain_none(batch: dict) -> None:
    metrics = HitFilterMetrics()
    batch["particle_valid"][:] = False
    batch["particle_index"][:] = -1
    metrics.update(**batch)
    assert len(metrics.retained(0.5)) == 0
