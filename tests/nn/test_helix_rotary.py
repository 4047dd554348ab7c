"""To a head of the right curvature the hits of a track stand at one place."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.encoder import Encoder
from hepattn.nn.helix_rotary import HelixRotary
from hepattn.nn.rotary import rotate
from hepattn.ops.attention import Full, attention_weights, make_plan
from hepattn.physics.helix import arcs_to_cylinder, make_helix, position

RADII = (32.0, 72.0, 116.0, 172.0)  # mm


def track(pt: float, phi: float, eta: float = 0.0, charge: int = 1) -> torch.Tensor:
    """Hits (φ, r, η) of a particle from the origin on barrel layers, by the simulator's helix."""
    momentum = np.array([[pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)]])
    helix = make_helix(np.zeros((1, 3)), momentum, np.array([charge]), field=2.0)
    hits = []
    for radius in RADII:
        arc = arcs_to_cylinder(helix, np.array([radius])).min()  # outward
        x, y, z = position(helix, np.array([arc]))[0]
        hits.append((math.atan2(y, x), radius, math.asinh(z / radius)))
    return torch.tensor(hits)


@pytest.mark.parametrize("charge", [-1, 1])
def test_hits_of_a_track_are_turned_alike_by_the_head_of_its_curvature(charge: int) -> None:
    encode = HelixRotary(16, 2, min_pt=0.8)  # two heads: one for each charge
    hits = track(0.8, phi=1.0, eta=0.7, charge=charge)
    cos, sin = (part.detach() for part in encode(hits[None]))
    spread = (cos.std(2).square() + sin.std(2).square()).sum(-1)[0]  # (H,)
    own, other = sorted(range(2), key=lambda head: float(spread[head]))
    assert spread[own] < 1e-3
    assert spread[other] > 0.1
    # The field bends positive particles to smaller azimuth: this must hold for real events too.
    assert encode.curvature[own] * charge < 0


def test_attention_begins_along_tracks() -> None:
    options = AttentionOptions(num_heads=2, head_dim=16, position_init=17.0)
    torch.manual_seed(0)
    layer, encode = Attention(32, options), HelixRotary(16, 2, min_pt=0.8)
    hits = torch.cat([track(0.8, phi=1.0), track(0.8, phi=1.4), track(5.0, phi=1.02, eta=1.0)])
    x, rotation = torch.randn(1, 12, 32), encode(hits[None])
    q = rotate(layer._split(layer.query(x)), rotation)
    k = rotate(layer._split(layer.key_value(x).chunk(2, -1)[0]), rotation)
    weights = attention_weights(q, k, plan=make_plan(Full(), torch.ones(1, 12).bool()))
    among_track = weights[0, :, :4, :4]  # of the first track, (H, 4, 4)
    assert (among_track.sum(-1) > 0.95).all()
    to_itself = among_track.diagonal(dim1=1, dim2=2).mean(-1)  # (H,)
    assert to_itself.min() < 0.35  # one head collects all four hits
    assert to_itself.max() > 0.7  # the other charge's sees each alone


def test_scores_depend_on_differences_of_azimuth_only() -> None:
    encoder = Encoder(16, 2, AttentionOptions(num_heads=2), rotary=HelixRotary)
    x, valid = torch.randn(1, 9, 16), torch.ones(1, 9).bool()
    hits = torch.rand(1, 9, 3) * torch.tensor([1.0, 500.0, 2.0])
    turned = hits.clone()
    turned[..., 0] = torch.remainder(hits[..., 0] + 2.5 + math.pi, 2 * math.pi) - math.pi
    expected = encoder(x, valid, positions=hits)
    assert_close(encoder(x, valid, positions=turned), expected, atol=1e-4, rtol=1e-3)


def test_curvatures_and_frequencies_are_learned() -> None:
    encoder = Encoder(16, 2, AttentionOptions(num_heads=2, position_init=5.0), rotary=HelixRotary)
    hits = torch.rand(1, 9, 3) * torch.tensor([1.0, 500.0, 2.0])
    encoder(
        torch.randn(1, 9, 16), torch.ones(1, 9).bool(), positions=hits
    ).square().sum().backward()
    assert (encoder.rotary.curvature.grad != 0).all()
    assert (encoder.rotary.eta_frequencies.grad != 0).all()


def test_a_single_head_begins_with_straight_tracks() -> None:
    assert HelixRotary(16, 1).curvature.tolist() == [0.0]


def test_loopers_and_far_hits_stay_finite() -> None:
    encode = HelixRotary(8, 2, min_pt=0.01)
    cos, sin = encode(torch.tensor([[[3.0, 1000.0, -4.0]]]))
    (cos.sum() + sin.sum()).backward()
    assert cos.isfinite().all()
    assert encode.curvature.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 2}, "head_dim=2 with eta_share=0.4 must hold a pair for phi and one for eta"),
        ({"min_pt": 0.0}, "min_pt=0.0 must be positive"),
        ({"max_eta": -1.0}, "max_eta=-1.0 must be positive"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HelixRotary(**{"head_dim": 16, "num_heads": 2, **options})


def test_a_start_at_positions_needs_positions() -> None:
    layer = Attention(16, AttentionOptions(num_heads=2, position_init=5.0))
    with pytest.raises(ValueError, match=r"position_init=5\.0 needs a rotary encoding"):
        layer(torch.randn(1, 3, 16), make_plan(Full(), torch.ones(1, 3).bool()))
    with pytest.raises(ValueError, match="needs a rotary encoding"):
        Encoder(16, 1, AttentionOptions(num_heads=2, position_init=5.0))
    with pytest.raises(ValueError, match=r"position_init=5\.0 needs bias=True"):
        AttentionOptions(position_init=5.0, bias=False)
    with pytest.raises(ValueError, match=r"position_init=5\.0 would be undone by qkv_norm"):
        Attention(16, AttentionOptions(num_heads=2, position_init=5.0), qkv_norm="RMSNorm")
