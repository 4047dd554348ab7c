import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hepattn.simulate.jets import CLASSES, JetConfig, make_jets
from hepattn.simulate.jets.detector import Jets
from hepattn.simulate.jets.kinematics import mass_of
from hepattn.simulate.jets.pythia import load


def make(name: str, num: int = 5) -> Jets:
    pytest.importorskip("pythia8mc")
    pytest.importorskip("fastjet")
    return make_jets(JetConfig(classes=(name,), generator="pythia"), num)


def test_jets_hold_their_resonance_and_are_reproducible() -> None:
    jets = make("Hbb")
    assert (jets.label == CLASSES.index("Hbb")).all()
    assert 100 < np.median(mass_of(jets.momentum)) < 140
    assert_array_equal(make("Hbb").particles, jets.particles)


def test_qcd_jets_come_from_events_without_a_visible_boson() -> None:
    jets = make("QCD")
    assert (np.hypot(jets.momentum[:, 1], jets.momentum[:, 2]) >= 500).all()


def test_w_bosons_of_both_charges_give_leptons() -> None:
    jets = make("Hqql", 15)
    pt = np.hypot(jets.particles[:, 1], jets.particles[:, 2])
    hard = np.isin(np.abs(jets.pdg_id), (11, 13)) & (pt > 50)
    signs = np.sign(jets.pdg_id[hard])
    assert (signs > 0).sum() >= 3
    assert (signs < 0).sum() >= 3


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastjet", None)
    with pytest.raises(ImportError, match=r"hepattn\[generators\]"):
        load("fastjet")
