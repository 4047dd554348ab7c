"""What the figures of the tracking show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from hepattn.data.trackml import PARTICLE_COLUMNS
from hepattn.experiments.trackml.tracking_plots import (
    EDGES,
    LABELS,
    plot_attention,
    plot_efficiency,
    plot_fake_rate,
    plot_residuals,
    plot_tracks,
)
from hepattn.metrics.track_matching import CRITERIA, TrackStatus
from hepattn.metrics.tracking import ParticleTable, TrackTable
from hepattn.physics.track_fit import FIT_COLUMNS
from hepattn.training.figures import save_figure


def heights(axis: Axes, curve: int = 0) -> np.ndarray:
    return axis.containers[curve].lines[0].get_ydata()


@pytest.fixture
def tracks() -> TrackTable:
    """Fakes where the fitted eta is positive; pT twice the truth, phi across the boundary."""
    num = 400
    truth = torch.rand(num, len(PARTICLE_COLUMNS)) + 1
    truth[:, PARTICLE_COLUMNS.index("phi")] = 3.14
    fit = torch.zeros(num, len(FIT_COLUMNS))
    fit[:, FIT_COLUMNS.index("pt")] = 2 * truth[:, PARTICLE_COLUMNS.index("pt")]
    fit[:, FIT_COLUMNS.index("eta")] = torch.linspace(-1.99, 1.99, num)
    fit[:, FIT_COLUMNS.index("phi")] = -3.14
    fit[0] = torch.nan
    fake = fit[:, FIT_COLUMNS.index("eta")] > 0
    status = torch.where(fake, int(TrackStatus.FAKE), int(TrackStatus.FOUND))
    ones = torch.ones(num)
    status = status.unsqueeze(1).expand(num, len(CRITERIA))
    return TrackTable(ones, ones, ones, ones, ones, status, fit, truth)


def test_efficiency_is_drawn_by_criterion_and_quantity() -> None:
    columns = torch.rand(500, len(PARTICLE_COLUMNS)) * 3 + 1
    found = torch.stack([columns[:, 0] > 1.5, columns[:, 0] > 3, columns[:, 0] < 0], dim=1)
    axes = plot_efficiency(ParticleTable(columns[:, 0], columns, columns[:, 0], found)).axes
    assert [axis.get_xlabel() for axis in axes] == list(LABELS.values())
    edges = EDGES["pt"]
    filled = edges[(edges >= 1) & (edges < 4)]
    np.testing.assert_array_equal(heights(axes[0], 0), (filled >= 1.5).astype(float))
    np.testing.assert_array_equal(heights(axes[0], 1), (filled >= 3).astype(float))
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "double majority",
        "perfect",
    ]


def test_fake_rate_follows_the_fitted_parameters(tracks: TrackTable) -> None:
    axes = plot_fake_rate(tracks).axes
    np.testing.assert_array_equal(heights(axes[1]), [0, 0, 0, 0, 1, 1, 1, 1])
    assert axes[1].get_xlabel() == r"fitted $\eta$"


def test_residuals_are_those_of_found_particles(tracks: TrackTable) -> None:
    axes = plot_residuals(tracks).axes
    legends = [axis.get_legend().get_texts()[0].get_text() for axis in axes]
    assert legends[0] == "median 1\nwidth 0"  # twice the truth
    assert legends[2].startswith("median 0.0032")  # across phi = pi


def test_attention_maps_sort_the_hits_by_phi(tmp_path: Path) -> None:
    weight = np.array([[[1.0, 2.0, 4.0], [0, 0, 0]], [[0, 1, 0], [3, 0, 3]]])
    figure = plot_attention(weight, np.array([0.5, -1.0, 0.1]))
    first, second = (axis.images[0].get_array() for axis in figure.axes[:2])
    np.testing.assert_array_equal(first, [[0.5, 1.0, 0.25], [0, 0, 0]])
    np.testing.assert_array_equal(second, [[1, 0, 0], [0, 1, 1]])
    save_figure(figure, tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 0


def test_a_matched_track_has_the_colour_of_its_particle(tmp_path: Path) -> None:
    particle_index = np.repeat([0, 1, -1], 5)
    track = np.array([7] * 4 + [-1] * 4 + [3] * 6 + [-1])  # 7 finds particle 0, 3 is a fake
    kept = np.arange(15) != 14
    position = np.random.default_rng(0).normal(0, 50, (15, 3))
    figure = plot_tracks(position, particle_index, kept, track)
    for row in (0, 3):
        (truth,) = figure.axes[row].collections[1:]
        matched, others = figure.axes[row + 2].collections[1:]
        assert len(truth.get_segments()) == 2
        assert len(matched.get_segments()) == len(others.get_segments()) == 1
        np.testing.assert_array_equal(matched.get_colors()[0], truth.get_colors()[0])
        assert tuple(others.get_colors()[0][:3]) == to_rgb("black")
        assert len(matched.get_segments()[0]) == 4
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["2 particles to find", "14 of 15 hits kept", "2 tracks, 1 matched"]
    save_figure(figure, tmp_path / "tracks.png")


def test_an_event_without_tracks_is_drawn() -> None:
    none = np.full(4, -1)
    figure = plot_tracks(np.ones((4, 3)), none, np.ones(4, dtype=bool), none)
    assert figure.axes[2].get_title() == "0 tracks, 0 matched"
