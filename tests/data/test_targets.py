import math
from pathlib import Path

import numpy as np
import pytest

from hepattn.data import DataError
from hepattn.data.trackml import (
    PARTICLE_COLUMNS,
    Event,
    ParticleSelection,
    make_targets,
    open_events,
)


def loop_targets(
    event: Event, selection: ParticleSelection
) -> tuple[dict[int, list[float]], list[int]]:
    """Reconstructable particles by id, and the id of the one that each hit belongs to, or 0."""
    assert event.particles is not None
    particles = {}
    inside = [
        selection.volumes is None or int(volume) in selection.volumes
        for volume in event.hits["volume_id"]
    ]
    owners = [int(owner) for owner in event.hits["particle_id"]]
    for i in range(len(event.particles["particle_id"])):
        row = {name: values[i].item() for name, values in event.particles.items()}
        count = sum(
            owner == row["particle_id"] and near for owner, near in zip(owners, inside, strict=True)
        )
        pt = math.hypot(row["px"], row["py"])
        if row["particle_id"] == 0 or count < selection.min_hits or pt <= selection.min_pt:
            continue
        eta = -math.log(math.tan(math.atan2(pt, row["pz"]) / 2))
        if abs(eta) < selection.max_eta:
            phi = math.atan2(row["py"], row["px"])
            particles[row["particle_id"]] = [pt, eta, phi, row["vz"], row["q"], count]
    belongs = [
        owner if near and owner in particles else 0
        for owner, near in zip(owners, inside, strict=True)
    ]
    return particles, belongs


def check(event: Event, selection: ParticleSelection) -> None:
    targets = make_targets(event, selection)
    particles, belongs = loop_targets(event, selection)
    assert targets.particle_id.tolist() == list(particles)
    expected = np.array(list(particles.values())).reshape(-1, len(PARTICLE_COLUMNS))
    np.testing.assert_allclose(targets.particles, expected, rtol=1e-6, atol=1e-7)
    assert targets.particles.dtype == np.float32
    assert targets.label.tolist() == [owner != 0 for owner in belongs]
    found = [int(targets.particle_id[i]) if i >= 0 else 0 for i in targets.particle_index]
    assert found == belongs
    assert targets.particles[:, 5].sum() == targets.label.sum()
    owners = event.hits["particle_id"]
    counts = [
        int(np.sum(targets.selected & (owners == owner))) if near and owner else 0
        for owner, near in zip(owners, targets.selected, strict=True)
    ]
    assert targets.num_particle_hits.tolist() == counts


@pytest.mark.parametrize(
    "selection",
    [
        ParticleSelection(volumes=(8,)),
        ParticleSelection(volumes=None, min_pt=0.6, max_eta=1.0, min_hits=5),
        ParticleSelection(volumes=(8,), min_hits=4),
        ParticleSelection(volumes=(99,)),
        ParticleSelection(volumes=None, min_pt=1e3),
    ],
)
def test_targets_agree_with_a_loop(raw_events: Path, selection: ParticleSelection) -> None:
    check(open_events(raw_events).read(0), selection)


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "num_particles", "num_signal", "num_selected"),
    [("", 47, 242, 2783), ("barrel", 103, 391, 2440)],
)
def test_targets_of_the_real_events(
    data_dir: Path, folder: str, num_particles: int, num_signal: int, num_selected: int
) -> None:
    event = open_events(data_dir / "trackml" / folder).read(0)
    selection = ParticleSelection()
    targets = make_targets(event, selection)
    assert len(targets.particles) == num_particles
    assert targets.label.sum() == num_signal
    assert targets.selected.sum() == num_selected
    check(event, selection)


def test_noise_never_counts_even_if_the_particles_list_it(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    assert event.particles is not None
    particles = {name: values.copy() for name, values in event.particles.items()}
    particles["particle_id"][0] = 0
    particles["px"][0] = 5
    check(Event(event.name, event.hits, particles), ParticleSelection(volumes=None))


def test_a_particle_without_momentum_is_not_reconstructable(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    assert event.particles is not None
    still = {
        name: values * (name[0] != "p" or name == "particle_id")
        for name, values in event.particles.items()
    }
    assert make_targets(Event(event.name, event.hits, still), ParticleSelection()).label.sum() == 0


@pytest.mark.parametrize("table", ["truth", "particles"])
def test_targets_need_truth_and_particles(one_event: Path, table: str) -> None:
    (one_event / f"event000000007-{table}.csv").unlink()
    event = open_events(one_event).read(0)
    with pytest.raises(DataError, match=rf"targets need event000000007-{table}\.csv"):
        make_targets(event, ParticleSelection())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"volumes": ()}, r"volumes=\(\) selects no hits"),
        ({"min_pt": -0.1}, r"min_pt=-0\.1 GeV must not be negative"),
        ({"max_eta": 0.0}, r"max_eta=0\.0 must be positive"),
        ({"min_hits": 0}, "min_hits=0 must be at least 1"),
    ],
)
def test_a_selection_refuses_cuts_that_make_no_sense(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParticleSelection(**values)
