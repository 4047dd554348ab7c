"""The doublets of a hit are the likeliest of its neighbourhood, and those of a track agree."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.doublets import NUM_COLUMNS, DoubletFinder, Doublets
from hepattn.physics.helix import arcs_to_cylinder, make_helix, position

RADII = (32.0, 72.0, 116.0, 172.0)  # mm


def random_hits(num: int) -> Tensor:
    """φ, r and z of random hits (N, 3), ascending in φ."""
    phi = ((2 * torch.rand(num) - 1) * math.pi).sort().values
    return torch.stack([phi, 30 + 150 * torch.rand(num), 300 * torch.randn(num)], -1)


def find(finder: DoubletFinder, hits: Tensor) -> Doublets:
    place = torch.arange(len(hits))[None]
    return finder(*hits[None].unbind(-1), torch.ones_like(place).bool(), place)


def likeliest(finder: DoubletFinder, hits: Tensor, anchor: int) -> list[int]:
    """The partners of one hit, best first, by a loop over all the others."""
    costs = {}
    for other, (phi, r, z) in enumerate(hits.tolist()):
        here = hits[anchor].tolist()
        turn = (phi - here[0] + math.pi) % (2 * math.pi) - math.pi
        step = r - here[1]
        if other != anchor and abs(step) > 3:
            bend = turn / step * finder.min_pt / (0.5 * 2.99792458e-4 * finder.field)
            start = here[2] - here[1] * (z - here[2]) / step
            costs[other] = (1 + bend**2) * (1 + (start / finder.length) ** 2) * (abs(step) + 6) ** 2
    return sorted(costs, key=costs.__getitem__)[: finder.num_doublets]


def test_partners_are_the_likeliest_of_all_hits_in_reach() -> None:
    finder, hits = DoubletFinder(num_doublets=5, num_neighbours=40), random_hits(30)
    doublets = find(finder, hits)
    for anchor in range(30):
        assert doublets.partner[0, anchor].tolist() == likeliest(finder, hits, anchor)
    assert doublets.valid.all()
    assert doublets.columns.shape == (1, 30, 5, NUM_COLUMNS)


@pytest.mark.parametrize("num", [1, 2, 3, 6, 7])
def test_a_small_event_has_each_doublet_once_and_none_with_itself(num: int) -> None:
    doublets = find(DoubletFinder(num_doublets=8, num_neighbours=8), random_hits(num))
    for anchor in range(num):
        partners = doublets.partner[0, anchor][doublets.valid[0, anchor]].tolist()
        assert len(set(partners)) == len(partners)
        assert anchor not in partners
        assert doublets.columns[0, anchor][~doublets.valid[0, anchor]].abs().sum() == 0


def test_only_neighbours_are_looked_at_cyclically() -> None:
    doublets = find(DoubletFinder(num_doublets=4, num_neighbours=6), random_hits(20))
    apart = (doublets.partner - torch.arange(20)[:, None]).remainder(20)  # (1, N, K)
    assert torch.minimum(apart, 20 - apart).max() <= 3
    assert (doublets.partner[0, 0] > 10).any()


def test_a_rotated_event_has_the_same_doublets() -> None:
    finder, hits = DoubletFinder(num_doublets=6, num_neighbours=16), random_hits(20)
    before = find(finder, hits)
    turned = hits + torch.tensor([1.3, 0.0, 0.0])
    turned[:, 0] = torch.remainder(turned[:, 0] + math.pi, 2 * math.pi) - math.pi
    order = turned[:, 0].argsort()
    after = find(finder, turned[order])
    assert_close(after.columns[0], before.columns[0][order], atol=1e-3, rtol=1e-3)


def test_doublets_of_one_track_agree_in_bend_and_slope() -> None:
    momentum = np.array([[1.0, 0.0, 0.8]])
    helix = make_helix(np.array([[0.0, 0.0, 20.0]]), momentum, np.array([1]), field=2.0)
    arcs = [arcs_to_cylinder(helix, np.array([radius])).min() for radius in RADII]
    x, y, z = np.concatenate([position(helix, np.array([arc])) for arc in arcs]).T
    order = np.argsort(np.arctan2(y, x))
    columns = np.stack([np.arctan2(y, x), np.hypot(x, y), z], -1)[order]
    doublets = find(DoubletFinder(num_doublets=3, num_neighbours=4), torch.tensor(columns).float())
    assert doublets.valid.all()
    assert_close(doublets.bend, torch.full_like(doublets.bend, -1.0), atol=0.01, rtol=0)
    assert_close(
        doublets.slope, torch.full_like(doublets.slope, math.asinh(0.8)), atol=0.01, rtol=0
    )


@pytest.mark.parametrize(
    "options", [{"num_doublets": 0}, {"min_pt": -1.0}, {"num_neighbours": 7}, {"num_neighbours": 8}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DoubletFinder(**options)
