"""The Lorentz tagger sees no frame but the one that it is given."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.lorentz_tagger import LorentzTagger
from hepattn.physics.four_vector import boost_along_z, rotate_about_z
from models.jet_network_cases import FEATURES, random_jets


def make(**options: object) -> LorentzTagger:
    net = LorentzTagger(FEATURES, 3, depth=2, num_vectors=4, num_scalars=8, num_heads=2, **options)
    return net.double().eval()


def turn(vectors: Tensor) -> Tensor:
    """Cycle the axes, z to x: a rotation."""
    return vectors[..., [0, 3, 1, 2]]


def jets() -> tuple[Tensor, Tensor, Tensor]:
    x, vectors, valid = random_jets(9, 4, 0)
    return x, vectors.double(), valid


def test_without_references_and_features_logits_are_lorentz_invariant() -> None:
    net = make(break_symmetry=False, use_features=False)
    x, vectors, valid = jets()
    moved = turn(boost_along_z(rotate_about_z(turn(boost_along_z(vectors, 0.8)), 1.1), -0.5))
    out = net(x, vectors, valid)
    assert_close(net(x, moved, valid), out, atol=1e-9, rtol=1e-9)
    assert (out[0] - out[1]).abs().max() > 1e-4  # not just a constant


def test_the_references_leave_rotations_about_the_beam() -> None:
    net = make(use_features=False)
    x, vectors, valid = jets()
    out = net(x, vectors, valid)
    assert_close(net(x, rotate_about_z(vectors, 0.7), valid), out, atol=1e-9, rtol=1e-9)
    for moved in (boost_along_z(vectors, 0.5), turn(vectors)):
        assert (net(x, moved, valid) - out).abs().max() > 1e-6


def test_features_reach_the_logits_only_when_used() -> None:
    x, vectors, valid = jets()
    for use in (True, False):
        net = make(use_features=use)
        change = net(x + 0.5, vectors, valid) - net(x, vectors, valid)
        assert (change[valid.any(1)].abs().max() > 0) == use


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_four_vectors_are_measured_in_units_of_the_energy_scale(scale: float) -> None:
    torch.manual_seed(1)
    net = make(use_features=False, energy_scale=scale)
    torch.manual_seed(1)
    unit = make(use_features=False, energy_scale=1.0)
    x, vectors, valid = jets()
    assert_close(net(x, vectors * scale, valid), unit(x, vectors, valid))


def test_the_default_network_is_small_and_stays_finite_at_high_energies() -> None:
    net = LorentzTagger(FEATURES, 10)
    assert 30_000 < sum(p.numel() for p in net.parameters()) < 300_000
    x, vectors, valid = random_jets(20, 3)
    assert net(x, vectors * 100, valid).isfinite().all()
