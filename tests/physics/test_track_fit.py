"""Fitted tracks against the helices that made their hits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.testing import assert_close

from hepattn.physics.coordinates import cartesian
from hepattn.physics.helix import arcs_to_cylinder, make_helix, position
from hepattn.physics.track_fit import FIT_COLUMNS, fit_helices

LAYERS = np.array([32.0, 72.0, 116.0, 172.0])  # mm
PT, ETA, PHI, Z0, CHARGE = range(len(FIT_COLUMNS))


def hits_of(truth: np.ndarray, field: float = 2.0, radii: np.ndarray = LAYERS) -> np.ndarray:
    """Crossings (T, R, 3) of the layers by particles (T, 5) that start on the beam line."""
    pt, eta, phi, z0, charge = truth.T
    start = np.stack([0 * z0, 0 * z0, z0], axis=1)
    helix = make_helix(start, cartesian(pt, eta, phi), charge, field)
    arcs = arcs_to_cylinder(helix, radii).min(axis=2)  # (T, R), the first crossing
    return np.stack([position(helix, arc) for arc in arcs.T], axis=1)


def fit_grid(hits: np.ndarray, field: float = 2.0) -> np.ndarray:
    """Fit tracks that all have the same number of hits (T, R, 3)."""
    track = np.repeat(np.arange(len(hits)), hits.shape[1])
    flat = torch.from_numpy(hits.reshape(-1, 3))
    return fit_helices(flat, torch.from_numpy(track), len(hits), field).numpy()


def random_truth(num: int, pt: tuple[float, float] = (0.15, 20)) -> np.ndarray:
    rng = np.random.default_rng(1)
    columns = [
        np.exp(rng.uniform(*np.log(pt), num)),
        rng.uniform(-4, 4, num),
        rng.uniform(-np.pi, np.pi, num),
        rng.normal(0, 55, num),
        rng.choice([-1.0, 1.0], num),
    ]
    return np.stack(columns, axis=1)


@settings(max_examples=60, deadline=None)
@given(
    pt=st.floats(0.1, 100),
    eta=st.floats(-4, 4),
    phi=st.floats(-3.14, 3.14),
    z0=st.floats(-150, 150),
    charge=st.sampled_from([-1.0, 1.0]),
    field=st.sampled_from([-2.0, 1.0, 3.8]),
    num_layers=st.integers(3, 4),
)
def test_exact_helices_from_the_beam_line_come_back(
    pt: float, eta: float, phi: float, z0: float, charge: float, field: float, num_layers: int
) -> None:
    truth = np.array([[max(pt, 0.06 * abs(field)), eta, phi, z0, charge]])
    found = fit_grid(hits_of(truth, field, LAYERS[:num_layers]), field)
    assert_allclose(found, truth, rtol=1e-6, atol=1e-6)


def test_each_track_is_fitted_by_itself() -> None:
    truth = random_truth(40)
    hits = hits_of(truth)
    track = np.repeat(np.arange(40), len(LAYERS))
    order = np.random.default_rng(0).permutation(len(track))
    flat = torch.from_numpy(hits.reshape(-1, 3)[order])
    found = fit_helices(flat, torch.from_numpy(track[order]), 40)
    assert_close(found, torch.from_numpy(truth), rtol=1e-6, atol=1e-6)


def test_a_displaced_start_moves_the_fit_by_little() -> None:
    """Vertices of the TrackML events lie about 0.01 mm from the beam line."""
    truth = random_truth(500, pt=(0.9, 3))
    hits = hits_of(truth) + np.array([0.01, -0.01, 0])
    found = fit_grid(hits)
    assert_allclose(found[:, PT], truth[:, PT], rtol=0.02)
    assert_allclose(found[:, ETA], truth[:, ETA], atol=0.001)
    assert_allclose(np.abs(np.angle(np.exp(1j * (found - truth)[:, PHI]))), 0, atol=0.001)


def test_smeared_hits_do_not_bias_the_curvature() -> None:
    truth = random_truth(4000)
    truth[:, PT] = 5
    hits = hits_of(truth)
    rng = np.random.default_rng(2)
    angle = np.arctan2(hits[..., 1], hits[..., 0])
    across = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], axis=-1)
    hits = hits + rng.normal(0, 0.03, angle.shape)[..., None] * across  # mm
    found = fit_grid(hits)
    signed = found[:, CHARGE] * truth[:, CHARGE] / found[:, PT] * 5  # 1 on average
    assert abs(signed.mean() - 1) < 4 * signed.std() / np.sqrt(len(signed))
    assert 0.05 < signed.std() < 0.5  # the smearing matters


def test_a_straight_track_has_infinite_momentum() -> None:
    line = torch.tensor([[30.0, 0, 5], [70, 0, 5], [110, 0, 5]])
    found = fit_helices(line, torch.zeros(3, dtype=torch.int64), 1)[0]
    assert found[PT] == torch.inf
    assert found[CHARGE] == 0
    assert_close(found[[ETA, PHI, Z0]], torch.tensor([0.0, 0, 5], dtype=torch.float64))


@pytest.mark.parametrize(
    "hits",
    [
        [],
        [[30.0, 1, 5], [70, 2, 6]],
        [[30.0, 1, 5]] * 3,
        [[30.0, 0, 5], [0, 30, 5], [0, -30, 5]],
    ],
    ids=["no hits", "two hits", "one place", "one radius"],
)
def test_what_decides_no_helix_is_not_a_number(hits: list) -> None:
    helix = torch.from_numpy(hits_of(np.array([[1.0, 0.5, 0.3, 10, 1]]))[0])
    flat = torch.cat([torch.tensor(hits, dtype=torch.float64).view(-1, 3), helix])
    track = torch.tensor([0] * len(hits) + [1] * len(helix))
    found = fit_helices(flat, track, 2)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()
