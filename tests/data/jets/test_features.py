"""Feature columns against formulas particle by particle, stored branches and weaver."""

import math
from pathlib import Path

import numpy as np
import pytest

from data.jets.make_jets import PDGIDS, draw_jets, to_awkward
from hepattn.data import DataError
from hepattn.data.jets import JetInput, JetTable, check_features, open_jets, particle_features
from hepattn.data.jets.features import COMPUTED, fill_jets, find_columns, needed_columns
from hepattn.data.jets.pid import PID_FEATURES
from hepattn.nn.normalise import Feature

KIN = ["part_pt_log", "part_e_log", "part_logptrel", "part_logerel", "part_deltaR"]
KIN += ["part_deta", "part_dphi"]
TRACK = ["part_d0", "part_d0err", "part_dz", "part_dzerr"]
VECTOR = {"part_px", "part_py", "part_pz", "part_energy"}


def make_table(num_jets: int = 6, drop: tuple[str, ...] = ()) -> JetTable:
    arrays = to_awkward(draw_jets(num_jets, seed=3))
    flat = {
        name: np.asarray(x.layout.content.data)
        for name, x in arrays.items()
        if name.startswith("part_") and name not in drop
    }
    jets = {
        name: np.asarray(x)
        for name, x in arrays.items()
        if name.startswith("jet_") and name not in drop
    }
    counts = np.array([len(x) for x in arrays["part_px"]])
    return JetTable(counts, flat, jets, np.zeros(num_jets, int), np.arange(num_jets))


def columns_of(table: JetTable, names: list[str]) -> dict[str, np.ndarray]:
    features = [Feature(name) for name in names]
    return dict(zip(names, particle_features(table, features, "jets").T, strict=True))


def test_stored_and_computed_features_follow_their_formulas() -> None:
    table = make_table()
    found = columns_of(table, KIN + TRACK + ["part_charge", "part_isMuon"])
    part = {name.removeprefix("part_"): x.astype(float) for name, x in table.particles.items()}
    for i, jet in enumerate(table.jet_of_particle):
        pt = math.hypot(part["px"][i], part["py"][i])
        jet_pt, jet_energy = (float(table.jets[f"jet_{x}"][jet]) for x in ("pt", "energy"))
        wanted = {
            "part_pt_log": math.log(pt),
            "part_e_log": math.log(part["energy"][i]),
            "part_logptrel": math.log(pt / jet_pt),
            "part_logerel": math.log(part["energy"][i] / jet_energy),
            "part_deltaR": math.hypot(part["deta"][i], part["dphi"][i]),
            "part_deta": part["deta"][i],
            "part_dphi": part["dphi"][i],
            "part_d0": math.tanh(part["d0val"][i]),
            "part_dz": math.tanh(part["dzval"][i]),
            "part_d0err": part["d0err"][i],
            "part_dzerr": part["dzerr"][i],
            "part_charge": part["charge"][i],
            "part_isMuon": part["isMuon"][i],
        }
        for name, value in wanted.items():
            assert found[name][i] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_places_are_relative_to_the_sum_where_a_source_has_none() -> None:
    drop = ("part_deta", "part_dphi", "jet_pt", "jet_eta", "jet_phi", "jet_energy")
    table = make_table(drop=drop)
    found = columns_of(fill_jets(table, ["jet_eta", "jet_phi", "jet_pt", "jet_energy"]), KIN)
    for jet, (start, count) in enumerate(zip(table.starts, table.counts, strict=True)):
        rows = slice(start, start + count)
        e, px, py, pz = (
            table.particles[f"part_{x}"][rows].astype(float) for x in ("energy", "px", "py", "pz")
        )
        if not count:
            continue
        jet_pt = math.hypot(px.sum(), py.sum())
        jet_eta = math.asinh(pz.sum() / jet_pt)
        jet_phi = math.atan2(py.sum(), px.sum())
        sign = math.copysign(1, jet_eta)
        deta = (np.arcsinh(pz / np.hypot(px, py)) - jet_eta) * sign
        dphi = [math.remainder(math.atan2(y, x) - jet_phi, math.tau) for x, y in zip(px, py)]  # noqa: B905
        assert np.allclose(found["part_deta"][rows], deta, atol=1e-5), jet
        assert np.allclose(found["part_dphi"][rows], dphi, atol=1e-5), jet
        assert np.allclose(found["part_logerel"][rows], np.log(e / e.sum()), atol=1e-5)


def test_particle_without_momentum_has_finite_features() -> None:
    table = make_table(drop=("part_deta", "part_dphi"))
    for name in VECTOR:
        table.particles[name][0] = 0
    assert all(np.isfinite(column).all() for column in columns_of(table, KIN).values())


def pid_table(pdgid: list[int]) -> JetTable:
    ones = np.ones(len(pdgid), np.float32)
    particles = dict.fromkeys(VECTOR, ones) | {"part_pdgid": np.array(pdgid, np.float32)}
    return JetTable(np.array([len(pdgid)]), particles, {}, np.zeros(1, int), np.zeros(1, int))


def test_flags_of_every_particle_kind() -> None:
    found = columns_of(pid_table(list(PDGIDS)), list(PID_FEATURES))
    # 211, -211, 321, 130, 2112, -2212, 22, 11, -11, 13
    wanted = {
        "part_charge": [1, -1, 1, 0, 0, -1, 0, -1, 1, -1],
        "part_isChargedHadron": [1, 1, 1, 0, 0, 1, 0, 0, 0, 0],
        "part_isNeutralHadron": [0, 0, 0, 1, 1, 0, 0, 0, 0, 0],
        "part_isPhoton": [0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        "part_isElectron": [0, 0, 0, 0, 0, 0, 0, 1, 1, 0],
        "part_isMuon": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        "part_isCHad": [1, 1, 0.5, 0, 0, 0.2, 0, 0, 0, 0],
        "part_isNHad": [0, 0, 0, 1, 0.2, 0, 0, 0, 0, 0],
    }
    for name, values in wanted.items():
        assert found[name].tolist() == pytest.approx(values), name


def test_pdg_ids_that_say_nothing_are_an_error() -> None:
    with pytest.raises(DataError, match=r"nothing but zeros.*\(kin\)"):
        columns_of(pid_table([0, 0]), ["part_charge"])
    with pytest.raises(DataError, match="found 12, expected ± one of"):
        columns_of(pid_table([211, 12]), ["part_charge"])


def test_features_a_source_cannot_give_are_named_with_what_it_has() -> None:
    features = [Feature("part_pt_log"), Feature("part_d0"), Feature("part_colour")]
    with pytest.raises(DataError, match=r"no part_d0, part_colour in .*part_px.*part_deltaR"):
        check_features(features, VECTOR, "top.h5")


def test_missing_features_take_the_value_that_the_list_gives() -> None:
    table = make_table(drop=("part_d0val",))
    columns = particle_features(table, [Feature("part_d0", missing=0.5)], "jets")
    assert (columns == 0.5).all()


def test_needed_columns_are_those_of_the_features() -> None:
    available = {*make_table().particles, *make_table().jets}
    assert needed_columns([Feature("part_d0")], available) == VECTOR | {"part_d0val"}
    names = [Feature("part_deltaR"), Feature("part_logptrel")]
    stored = VECTOR | {"part_deta", "part_dphi", "jet_pt"}
    assert needed_columns(names, available) == stored
    assert needed_columns(names, VECTOR) == VECTOR
    assert find_columns("part_deltaR", VECTOR) == {"jet_eta", "jet_phi"}
    assert set(COMPUTED) >= set(KIN)


@pytest.mark.data
@pytest.mark.parametrize("name", ["JetClass_top200_full", "JetClass_small500_p4"])
def test_computed_places_agree_with_the_stored_ones(data_dir: Path, name: str) -> None:
    source = open_jets(data_dir / f"jetclass/{name}.root")
    table = source.read(0, source.num_jets)
    stored = {name: table.particles.pop(name) for name in ("part_deta", "part_dphi")}
    found = columns_of(table, ["part_deta", "part_dphi"])
    assert np.abs(found["part_dphi"] - stored["part_dphi"]).max() < 2e-6
    # The η of the original jet differs a little from that of its particles, alike for all.
    difference = found["part_deta"] - stored["part_deta"]
    assert np.abs(difference).max() < 0.02
    mean = np.bincount(table.jet_of_particle, difference) / table.counts
    assert np.abs(difference - mean[table.jet_of_particle]).max() < 5e-6


@pytest.mark.data
def test_real_quark_and_gluon_jets_have_no_particle_identification(data_dir: Path) -> None:
    source = open_jets(data_dir / "quarkgluon/qg_1000.npz")
    JetInput([Feature(name) for name in KIN]).check(source)
    with pytest.raises(DataError, match="nothing but zeros"):
        JetInput([Feature("part_isPhoton")]).check(source)
