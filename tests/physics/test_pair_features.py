"""Features of pairs against weaver's and against the symmetries of a collider."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from hepattn.physics.four_vector import boost_along_z, rotate_about_z
from hepattn.physics.pair_features import (
    ANGLES,
    PAIR_FEATURES,
    SYMMETRIC,
    PairFeature,
    kinematics,
    pair_features,
)

INVARIANT = ("kt", "z", "delta_r", "m2", "ds2", "delta_rapidity", "delta_phi", "pt_ratio")
WEAVER = PAIR_FEATURES[:8]


def particles(num: int, dtype: torch.dtype = torch.float64) -> Tensor:
    momenta = 20 * torch.randn(num, 3, dtype=dtype)
    energy = (momenta.square().sum(-1, keepdim=True) + 0.02).sqrt()
    return torch.cat([energy, momenta], -1)


def all_pairs(vectors: Tensor, names: tuple[PairFeature, ...]) -> Tensor:
    return pair_features(kinematics(vectors[:, None]), kinematics(vectors[None]), names)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("num", [1, 4, 5, 8])
def test_features_are_those_of_weaver(num: int, dtype: torch.dtype) -> None:
    peer = pytest.importorskip("weaver.nn.model.ParticleTransformer", reason="needs the extra dev")
    vectors = particles(12, dtype)
    momentum_first = vectors[:, [1, 2, 3, 0]].T[None]
    expected = peer.pairwise_lv_fts_pp(
        momentum_first[..., None], momentum_first[..., None, :], num_outputs=num
    )[0]
    names = ("delta_r",) if num == 1 else WEAVER[:num]
    found = all_pairs(vectors, names)
    if num > 4:  # the distance of a particle from itself is not at the floor of both
        found, expected = (
            x.flatten(1)[:, ~torch.eye(12).bool().flatten()] for x in (found, expected)
        )
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_the_features_of_two_particles_by_hand() -> None:
    a = torch.tensor([10.0, 6.0, 0.0, 8.0]).double()
    b = torch.tensor([5.0, 0.0, 3.0, 4.0]).double()
    delta_y = 0.0  # both have pz / E = 0.8
    delta_r = math.hypot(delta_y, math.pi / 2)
    cos = (6 * 0 + 0 * 3 + 8 * 4) / (10 * 5)
    m2 = (15**2) - (6**2 + 3**2 + 12**2)
    expected = {
        "kt": math.log(3 * delta_r),
        "z": math.log(3 / 9),
        "delta_r": math.log(delta_r),
        "m2": math.log(m2),
        "ds2": math.log(6**2 + 3**2 + 4**2 - 5**2),
        "delta_rapidity": 0.0,
        "delta_phi": -math.pi / 2,
        "cos_angle": cos,
        "sin_angle": math.sqrt(1 - cos**2),
        "kt_angle": math.log(5 * math.sqrt(1 - cos**2)),
        "z_momentum": math.log(5 / 15),
        "jade": math.log(50 * (1 - cos)),
        "pt_ratio": math.log(2),
    }
    found = pair_features(kinematics(a), kinematics(b), tuple(expected))
    assert_close(found, torch.tensor(list(expected.values())).double())


def test_log1p_is_an_option() -> None:
    a, b = (kinematics(x) for x in particles(2))
    logs = pair_features(a, b, PAIR_FEATURES)
    found = pair_features(a, b, PAIR_FEATURES, "log1p")
    for name, log, log1p in zip(PAIR_FEATURES, logs, found, strict=True):
        assert_close(log1p, log if name in ANGLES else log.exp().log1p())


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-3, 3))
def test_boosts_along_the_beam_and_rotations_about_it_change_nothing(
    shift: float, angle: float
) -> None:
    vectors = particles(8)
    moved = rotate_about_z(boost_along_z(vectors, shift), angle)
    apart = ~torch.eye(8).bool()
    before, after = (all_pairs(x, INVARIANT)[:, apart] for x in (vectors, moved))
    assert_close(after, before, atol=1e-6, rtol=1e-6)


def test_symmetric_features_are_symmetric_and_only_they() -> None:
    features = all_pairs(particles(6), PAIR_FEATURES)
    for name, x in zip(PAIR_FEATURES, features, strict=True):
        assert torch.allclose(x, x.T) is (name in SYMMETRIC), name


def test_padding_has_finite_features() -> None:
    assert all_pairs(torch.zeros(2, 4), PAIR_FEATURES).isfinite().all()
