import numpy as np
from numpy.testing import assert_allclose

from hepattn.simulate.events.detector import (
    LEPTON_EFFICIENCY,
    LEPTON_RESOLUTION,
    MAX_ETA,
    MAX_TAG_ETA,
    MIN_JET_PT,
    MIN_LEPTON_PT,
    detect,
    draw_btag,
    wrap,
)
from hepattn.simulate.events.processes import Legs, x_to_bb
from hepattn.simulate.events.table import BTAG_SHARES


def one_leg(code: int, num: int, pt: float, eta: float = 0.0) -> Legs:
    vector = [pt * np.cosh(eta), pt, 0.0, pt * np.sinh(eta)]
    return Legs(np.tile(vector, (num, 1, 1)), np.full((num, 1), code))


def test_objects_are_inside_the_acceptance() -> None:
    tables = detect(x_to_bb(2000, np.random.default_rng(0)), np.random.default_rng(1))
    for kind, least in (("jets", MIN_JET_PT), ("electrons", MIN_LEPTON_PT)):
        found = tables[kind][tables[kind]["valid"]]
        assert len(found)
        assert found["pt"].min() > least
        assert np.abs(found["eta"]).max() < MAX_ETA[kind]
        assert np.abs(found["phi"]).max() <= np.float32(np.pi)
    jets = tables["jets"][tables["jets"]["valid"]]
    assert not jets["btag"][np.abs(jets["eta"]) > MAX_TAG_ETA].any()


def test_leptons_are_found_and_measured_as_told() -> None:
    rng = np.random.default_rng(0)
    for kind, code in (("electrons", -11), ("muons", 13)):
        table = detect(one_leg(code, 5000, 100.0), rng)[kind][:, 0]
        assert abs(table["valid"].mean() - LEPTON_EFFICIENCY) < 0.02
        pt = table["pt"][table["valid"]]
        assert_allclose(pt.mean(), 100.0, rtol=0.002)
        assert_allclose(pt.std() / 100.0, LEPTON_RESOLUTION[kind], rtol=0.1)
        assert (table["charge"][table["valid"]] == (1 if code < 0 else -1)).all()


def test_hard_jets_are_measured_better_than_soft_ones() -> None:
    rng = np.random.default_rng(0)
    spread = []
    for pt in (100.0, 1000.0):
        jets = detect(one_leg(1, 3000, pt), rng)["jets"][:, 0]
        assert_allclose(np.median(jets["pt"]), pt, rtol=0.01)
        low, high = np.percentile(jets["pt"], [15.87, 84.13])
        spread.append(0.5 * (high - low) / pt)
    assert_allclose(spread, [0.0943, 0.0473], rtol=0.08)  # noise, sampling, constant


def test_neutrinos_are_not_seen() -> None:
    tables = detect(one_leg(12, 10, 100.0), np.random.default_rng(0))
    assert not any(table["valid"].any() for table in tables.values())


def test_tags_come_with_their_shares() -> None:
    is_b = np.arange(40_000) % 2 == 0
    tags = draw_btag(is_b, np.random.default_rng(0))
    for flags, name in ((is_b, "b"), (~is_b, "light")):
        shares = np.bincount(tags[flags], minlength=5) / flags.sum()
        assert_allclose(shares, BTAG_SHARES[name], atol=0.012)


def test_angles_are_wrapped() -> None:
    assert_allclose(
        wrap(np.array([-np.pi, 3.5, -3.5, 0.1])), [-np.pi, 3.5 - 2 * np.pi, 2 * np.pi - 3.5, 0.1]
    )
