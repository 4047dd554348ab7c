from pathlib import Path

import numpy as np
import pytest

from hepattn.simulate.tracker import TrackerConfig, simulate_event, simulate_events
from hepattn.simulate.tracker.compare import (
    SENSORS,
    Summary,
    main,
    read_real_event,
    summarise,
    tables_of,
)


def test_comparison_is_drawn(tmp_path: Path) -> None:
    simulate_events(tmp_path / "real", 1, TrackerConfig(num_particles=100), progress=False)
    figure = tmp_path / "comparison.png"
    options = ["--num_events", "1", "--config.num_particles", "50"]
    main([str(tmp_path / "real"), "--out", str(figure), *options])
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_directory_without_an_event_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no event with all of hits, cells"):
        read_real_event(tmp_path)


@pytest.fixture(scope="module")
def pair(data_dir: Path) -> tuple[Summary, Summary]:
    config = TrackerConfig()
    events = [tables_of(simulate_event(config, number)) for number in range(6)]
    real = summarise([read_real_event(data_dir / "trackml")], config.min_pt)
    return real, summarise(events, config.min_pt)


@pytest.mark.data
def test_particles_are_alike_in_kind(pair: tuple[Summary, Summary]) -> None:
    real, simulated = pair
    for name, values in (
        ("pt median", [np.median(s.pt) for s in pair]),
        ("pt, 90 %", [np.percentile(s.pt, 90) for s in pair]),
        ("pt, 99 %", [np.percentile(s.pt, 99) for s in pair]),
        ("hits a particle", [s.num_hits.mean() for s in pair]),
        ("share of secondaries", [(s.vertex_radius > 0.1).mean() for s in pair]),
        (
            "radius of secondaries",
            [np.median(s.vertex_radius[s.vertex_radius > 0.1]) for s in pair],
        ),
        ("share of noise", [s.noise.mean() for s in pair]),
    ):
        assert 1 / 1.5 < values[1] / values[0] < 1.5, name
    assert abs(np.median(real.num_hits) - np.median(simulated.num_hits)) <= 1


@pytest.mark.data
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("sensor", SENSORS)
def test_clusters_are_alike_in_kind(
    pair: tuple[Summary, Summary], sensor: str, noise: bool
) -> None:
    sizes = [s.num_cells[s.hits_of(sensor) & (s.noise == noise)] for s in pair]
    assert 1 / 1.5 < sizes[1].mean() / sizes[0].mean() < 1.5
    real, simulated = (np.percentile(size, [25, 50, 75, 90]) for size in sizes)
    assert (np.abs(simulated - real) <= np.maximum(1.0, 0.5 * real)).all()


@pytest.mark.data
def test_hits_are_spread_over_the_volumes_alike(pair: tuple[Summary, Summary]) -> None:
    for volume in range(7, 19):
        for noise in (False, True):
            real, simulated = (((s.volume == volume) & (s.noise == noise)).mean() for s in pair)
            assert abs(real - simulated) < 0.4 * real + 0.003, (volume, noise)
