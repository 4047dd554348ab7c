from types import SimpleNamespace

import numpy as np
import pytest

from hepattn.physics.coordinates import pseudorapidity
from hepattn.simulate.tracker import TrackerConfig, simulate_event
from hepattn.simulate.tracker.particles import Particles, make_particles


def draw(seed: int = 0, **options: object) -> Particles:
    return make_particles(TrackerConfig(**options), np.random.default_rng(seed))


@pytest.mark.parametrize("num", [1, 50, 2000, 10_000])
def test_an_event_has_exactly_the_particles_asked_for(num: int) -> None:
    particles = draw(num_particles=num)
    assert len(np.unique(particles.identity)) == num
    assert particles.identity.dtype == np.int64
    assert particles.identity.min() > 2**52


def test_particles_respect_the_acceptance() -> None:
    particles = draw(num_particles=5000, min_pt=0.4, max_eta=1.5)
    assert np.hypot(*particles.momentum.T[:2]).min() >= 0.4
    assert np.abs(pseudorapidity(*particles.momentum.T)).max() <= 1.5 + 1e-9


def test_primaries_start_in_the_luminous_region() -> None:
    particles = draw(num_particles=10_000, secondary_fraction=0.0)
    assert particles.vertex[:, 2].std() == pytest.approx(55, rel=0.15)  # 200 collisions
    assert np.hypot(*particles.vertex.T[:2]).max() < 0.1
    assert len(np.unique(particles.vertex[:, 2])) == 200


def test_secondaries_are_displaced_and_softer() -> None:
    particles = draw(num_particles=10_000, secondary_fraction=0.29)
    displaced = np.hypot(*particles.vertex.T[:2]) > 0.1
    pt = np.hypot(*particles.momentum.T[:2])
    assert displaced.mean() == pytest.approx(0.29, abs=0.02)
    assert np.median(pt[displaced]) < 0.8 * np.median(pt[~displaced])
    assert np.hypot(*particles.vertex.T[:2]).max() < 1021
    assert np.abs(particles.vertex[:, 2]).max() < 3200


def test_charges_follow_the_particle_codes() -> None:
    particles = draw(num_particles=5000)
    for code, charge in ((11, -1), (-11, 1), (13, -1), (211, 1), (-321, -1), (2212, 1)):
        assert (particles.charge[particles.kind == code] == charge).all()
    assert (particles.mass > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"generator": "herwig"}, "generator='herwig' must be"),
        ({"min_pt": 0.0}, "min_pt=0.0 must be positive"),
        ({"material": -0.1}, "material=-0.1 must not be negative"),
        ({"noise_fraction": 1.0}, "noise_fraction=1.0 must be at least 0 and below 1"),
    ],
)
def test_config_refuses_values_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrackerConfig(**options)


def test_a_missing_generator_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pythia8mc", None)
    with pytest.raises(ImportError, match=r"pip install 'hepattn\[generators\]'"):
        simulate_event(TrackerConfig(generator="pythia8"), 0)


class StandInPythia:
    """Answers like Pythia's Python interface; a collision has 30 charged and neutral pions."""

    def __init__(self, _: str, print_banner: bool) -> None:
        assert not print_banner
        self.settings: list[str] = []

    def readString(self, setting: str) -> bool:  # noqa: N802
        self.settings.append(setting)
        return True

    def init(self) -> bool:
        seed = next(s for s in self.settings if s.startswith("Random:seed"))
        self.rng = np.random.default_rng(int(seed.split("=")[1]))
        return True

    def next(self) -> bool:
        values = self.rng.normal(0, 0.6, (30, 3))
        self.event = [
            SimpleNamespace(
                id=lambda i=i: (211, -211, 111)[i % 3],
                isFinal=lambda i=i: i % 5 > 0,
                xProd=lambda: 0.0,
                yProd=lambda: 0.0,
                zProd=lambda: 1.0,
                px=lambda p=p: p[0],
                py=lambda p=p: p[1],
                pz=lambda p=p: p[2],
            )
            for i, p in enumerate(values)
        ]
        return True


def test_collisions_are_overlaid_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Pythia=StandInPythia)
    monkeypatch.setitem(__import__("sys").modules, "pythia8mc", module)
    options = {"generator": "pythia8", "num_particles": 200, "secondary_fraction": 0.0}
    particles, again, other = (draw(seed, **options) for seed in (0, 0, 1))
    assert len(particles.charge) == 200
    assert np.array_equal(particles.momentum, again.momentum)
    assert not np.array_equal(particles.momentum, other.momentum)
    assert set(np.abs(particles.kind)) == {211}
    assert len(np.unique(particles.vertex[:, 2])) > 10  # one a collision
    assert np.hypot(*particles.momentum.T[:2]).min() >= 0.15
