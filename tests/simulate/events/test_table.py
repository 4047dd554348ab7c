import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hepattn.simulate.events import EventsConfig, make_events
from hepattn.simulate.events.table import (
    LEPTON_MASS,
    MAX_OBJECTS,
    OBJECTS,
    event_columns,
    fill,
    four_momenta,
    mc_weights,
)

NUM = 60


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    return make_events(EventsConfig(), NUM)


def vector_of(kind: str, row: np.void) -> np.ndarray:
    pt, eta, phi = float(row["pt"]), float(row["eta"]), float(row["phi"])
    mass = float(row["mass"]) if kind == "jets" else LEPTON_MASS[kind]
    momentum = [pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)]
    return np.array([math.sqrt(sum(p * p for p in momentum) + mass * mass), *momentum])


def mass(vectors: list[np.ndarray]) -> float:
    if len(vectors) < 2:
        return 0.0
    total = vectors[0] + vectors[1]
    return math.sqrt(max(total[0] ** 2 - (total[1:] ** 2).sum(), 0.0))


def test_slots_hold_the_objects_of_largest_pt_in_order() -> None:
    rng = np.random.default_rng(0)
    size = MAX_OBJECTS["electrons"] + 3
    pt = rng.exponential(30.0, (50, size))
    valid = rng.random(pt.shape) < 0.6
    columns = {"pt": pt, "eta": 2 * pt, "phi": pt, "charge": np.ones(pt.shape), "isolation": pt}
    table = fill("electrons", valid, columns)
    for row, kept, there in zip(table, pt, valid, strict=True):
        best = np.sort(kept[there])[::-1][: MAX_OBJECTS["electrons"]]
        assert_array_equal(row["valid"], np.arange(MAX_OBJECTS["electrons"]) < len(best))
        assert_allclose(row["pt"][row["valid"]], best, rtol=1e-6)
        assert_allclose(row["eta"], 2 * row["pt"])
        assert not any(row[name][~row["valid"]].any() for name in ("pt", "charge"))


def test_fewer_candidates_than_slots_leave_empty_ones() -> None:
    pt = np.array([[30.0, 40.0]])
    names = ("pt", "eta", "phi", "mass", "btag")
    table = fill("jets", np.array([[True, True]]), dict.fromkeys(names, pt))
    assert_allclose(table["pt"][0], [40.0, 30.0] + [0.0] * (MAX_OBJECTS["jets"] - 2))


def test_columns_sum_the_stored_objects_up(tables: dict[str, np.ndarray]) -> None:
    for index, event in enumerate(tables["events"]):
        rows = {
            kind: [row for row in tables[kind][index] if row["valid"]]
            for kind in ("jets", "electrons", "muons")
        }
        jets = rows["jets"]
        leptons = [(kind, row) for kind in ("electrons", "muons") for row in rows[kind]]
        leptons.sort(key=lambda pair: -pair[1]["pt"])
        expected = {
            "ht": sum(float(jet["pt"]) for jet in jets),
            "num_jets": len(jets),
            "num_btags": sum(jet["btag"] >= 3 for jet in jets),
            "num_leptons": len(leptons),
            "eta_mean": np.mean([jet["eta"] for jet in jets]) if jets else 0.0,
            "delta_eta_jj": abs(jets[0]["eta"] - jets[1]["eta"]) if len(jets) > 1 else 0.0,
            "m_jj": mass([vector_of("jets", jet) for jet in jets]),
            "m_ll": mass([vector_of(*pair) for pair in leptons]),
            "lepton_pt": leptons[0][1]["pt"] if leptons else 0.0,
            "lepton_eta": leptons[0][1]["eta"] if leptons else 0.0,
            "lepton_flavour": {"electrons": 11, "muons": 13}[leptons[0][0]] if leptons else 0,
        }
        for name, value in expected.items():
            assert_allclose(event[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_missing_momentum_balances_objects_and_soft_part(tables: dict[str, np.ndarray]) -> None:
    objects = {kind: tables[kind] for kind in MAX_OBJECTS}
    soft = np.random.default_rng(0).normal(size=(NUM, 2))
    columns = event_columns(objects, soft)
    total = soft + sum(
        four_momenta(kind, table)[..., 1:3].sum(1) for kind, table in objects.items()
    )
    x, y = (columns["met"] * f(columns["met_phi"]) for f in (np.cos, np.sin))
    assert_allclose(np.stack([x, y], axis=-1), -total, atol=1e-9)


def test_an_event_without_objects_has_zeros() -> None:
    empty = {kind: np.zeros((1, size), OBJECTS[kind]) for kind, size in MAX_OBJECTS.items()}
    columns = event_columns(empty, np.array([[3.0, 4.0]]))
    assert columns.pop("met") == 5.0
    columns.pop("met_phi")
    assert not any(column.any() for column in columns.values())


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_weights_have_mean_one_and_the_share_of_negative_ones(share: float) -> None:
    weight = mc_weights(20_000, share, np.random.default_rng(0))
    assert_allclose(np.abs(weight), 1 / (1 - 2 * share))
    assert abs((weight < 0).mean() - share) < 0.01
    assert abs(weight.mean() - 1) < 0.03
