import numpy as np
import pytest
from numpy.testing import assert_allclose

from hepattn.simulate.jets.branching import GLUON, Partons, branch
from hepattn.simulate.jets.hadrons import fragment

NUM = 300


def branched(flavour: int, energy: float = 300.0, angle: float = 1.0) -> Partons:
    rng = np.random.default_rng(0)
    return branch(np.full(NUM, flavour), np.full(NUM, energy), np.full(NUM, angle), rng)


def multiplicity(partons: Partons) -> float:
    return len(partons.parent) / NUM


@pytest.mark.parametrize("flavour", [1, 5, GLUON])
def test_momentum_is_shared_among_the_partons(flavour: int) -> None:
    partons = branched(flavour)
    shared = fragment(partons, np.full(NUM, 300.0), np.random.default_rng(1))
    for some in (partons, shared):
        assert_allclose(np.bincount(some.parent, some.fraction), 1.0)
        for component in some.kt.T:
            assert_allclose(np.bincount(some.parent, component), 0.0, atol=1e-9)


def test_angles_fall_along_the_shower() -> None:
    # If they do, nothing branches after the narrowest branching: both its partons are final.
    partons = branched(GLUON)
    assert partons.angle.max() <= 1.0
    for parent in range(50):
        angles = partons.angle[partons.parent == parent]
        if len(angles) > 1:
            assert (angles == angles.min()).sum() == 2


def test_gluons_branch_more_than_quarks() -> None:
    ratio = multiplicity(branched(GLUON)) / multiplicity(branched(1))
    assert 1.3 < ratio < 9 / 4  # C_A / C_F for infinite energy


def test_heavy_quarks_keep_more_of_their_energy() -> None:
    def kept(flavour: int) -> float:
        partons = branched(flavour)
        shared = fragment(partons, np.full(NUM, 300.0), np.random.default_rng(1))
        return float(shared.fraction[shared.flavour == flavour].mean())

    assert kept(5) > kept(4) > kept(1)


def test_flavour_is_conserved() -> None:
    partons = branched(5)
    net = np.bincount(partons.parent, np.where(np.abs(partons.flavour) == 5, partons.flavour, 0))
    assert (net == 5).all()
