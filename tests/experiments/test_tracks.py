"""Tracks are what the answers say, hit by hit."""

# B events, M queries, N hits, P particles

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from hepattn.data.trackml import PARTICLE_COLUMNS
from hepattn.experiments.trackml.tracks import (
    PARAMETER_NAMES,
    first_hits,
    form_tracks,
    particle_parameters,
    track_estimates,
)
from hepattn.nn.mask_head import Detections


def answer(objects: list[float], masks: list[list[float]]) -> Detections:
    """Detections of one event with these scores."""
    return Detections(torch.tensor([objects]).logit(), torch.tensor([masks]).logit())


def tracks(objects: list[float], masks: list[list[float]], **options: float) -> list[int]:
    """Tracks of one event without padding."""
    query_valid, valid = torch.ones(1, len(objects)), torch.ones(1, len(masks[0]))
    options = {"min_hits": 1} | options
    return form_tracks(answer(objects, masks), query_valid > 0, valid > 0, **options)[0].tolist()


def test_a_hit_goes_to_the_highest_product_of_object_and_mask_score() -> None:
    masks = [[0.95, 0.65, 0.7], [0.8, 0.9, 0.2]]
    assert tracks([0.6, 0.9], masks) == [1, 1, 0]  # products .57 < .72, .39 < .81, .42
    assert tracks([0.9, 0.6], masks) == [0, 0, 0]  # products .86 > .48, .59 > .54, .63


def test_hits_that_no_mask_holds_are_free() -> None:
    assert tracks([0.9, 0.9], [[0.4, 0.9], [0.3, 0.2]]) == [-1, 0]


def test_queries_without_an_object_hold_nothing() -> None:
    assert tracks([0.4, 0.9], [[0.9, 0.9], [0.6, 0.1]]) == [1, -1]


@pytest.mark.parametrize("name", ["object_threshold", "mask_threshold"])
@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0), (0.500001, -1)])
def test_thresholds_are_inclusive(name: str, threshold: float, expected: int) -> None:
    half = Detections(torch.zeros(1, 1), torch.zeros(1, 1, 1))  # both scores are exactly 1/2
    real = torch.tensor([[True]])
    cuts = {"object_threshold": 0.1, "mask_threshold": 0.1} | {name: threshold}
    assert form_tracks(half, real, real, **cuts, min_hits=1).item() == expected


@pytest.mark.parametrize(
    ("min_hits", "expected"),
    [(1, [0, 0, 0, 1]), (2, [0, 0, 0, -1]), (3, [0, 0, 0, -1]), (4, [-1] * 4)],
)
def test_short_tracks_are_dropped_and_their_hits_stay_free(
    min_hits: int, expected: list[int]
) -> None:
    masks = [[0.9, 0.9, 0.9, 0.1], [0.8, 0.8, 0.1, 0.9]]  # the first takes hits of the second
    assert tracks([0.9, 0.8], masks, min_hits=min_hits) == expected


def test_padded_queries_and_hits_are_in_no_track() -> None:
    scores = answer([0.6, 0.9], [[0.7] * 4, [0.9] * 4])
    query_valid = torch.tensor([[True, False]])
    valid = torch.tensor([[True, True, True, False]])
    assert form_tracks(scores, query_valid, valid).tolist() == [[0, 0, 0, -1]]
    assert form_tracks(scores, query_valid, valid, min_hits=4).tolist() == [[-1] * 4]


def tracks_by_loop(
    found: Detections, query_valid: Tensor, valid: Tensor, cuts: tuple[float, float], min_hits: int
) -> list[list[int]]:
    events = []
    objects, masks = found.object_logit.sigmoid(), found.mask_logit.sigmoid()
    for event in range(len(valid)):
        best: dict[int, tuple[float, int]] = {}
        for query in range(query_valid.shape[1]):
            score = objects[event, query]
            if not query_valid[event, query] or score < cuts[0]:
                continue
            for hit in range(valid.shape[1]):
                mask = masks[event, query, hit]
                if valid[event, hit] and mask >= cuts[1]:
                    best[hit] = max(best.get(hit, (0.0, -1)), (float(mask * score), query))
        owner = [best.get(hit, (0.0, -1))[1] for hit in range(valid.shape[1])]
        events.append([query if owner.count(query) >= min_hits else -1 for query in owner])
    return events


@given(
    num_hits=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    num_queries=st.integers(0, 5),
    cuts=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
    min_hits=st.integers(1, 4),
    seed=st.integers(0, 2**20),
)
def test_tracks_equal_a_naive_loop(
    num_hits: list[int], num_queries: int, cuts: tuple[float, float], min_hits: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(num_hits), 5, max(1, *num_hits))
    valid = torch.arange(shape[2]) < torch.tensor(num_hits).unsqueeze(1)
    query_valid = (torch.arange(5) < num_queries).expand(shape[:2]).clone()
    query_valid[-1] = torch.arange(5) < (num_queries + 2) % 6
    found = Detections(
        2 * torch.randn(shape[:2], generator=generator), 2 * torch.randn(shape, generator=generator)
    )
    expected = tracks_by_loop(found, query_valid, valid, cuts, min_hits)
    assert form_tracks(found, query_valid, valid, *cuts, min_hits).tolist() == expected


@given(
    owners=st.lists(st.lists(st.integers(-1, 4), min_size=7, max_size=7), min_size=1, max_size=3),
    seed=st.integers(0, 2**20),
)
def test_first_hits_equal_a_loop_over_the_particles(owners: list[list[int]], seed: int) -> None:
    particle_index = torch.tensor(owners)
    r = 200 * torch.rand(particle_index.shape, generator=torch.Generator().manual_seed(seed))
    expected = torch.zeros_like(particle_index, dtype=torch.bool)
    for event, row in enumerate(owners):
        for particle in set(row) - {-1}:
            own = [hit for hit, owner in enumerate(row) if owner == particle]
            expected[event, min(own, key=lambda hit, event=event: float(r[event, hit]))] = True
    assert torch.equal(first_hits(particle_index, r, 5), expected)


def test_an_event_without_particles_has_no_first_hits() -> None:
    particle_index = torch.full((2, 4), -1)
    assert not first_hits(particle_index, torch.rand(2, 4), 1).any()


def test_parameters_of_a_particle_are_what_their_names_say() -> None:
    values = {"pt": 2.0, "eta": -1.5, "phi": 3.0, "vz": 75.0, "charge": -1.0, "num_hits": 9.0}
    particles = torch.tensor([[[values[name] for name in PARTICLE_COLUMNS], [0.0] * 6]])
    found = particle_parameters(particles)
    expected = {"log_pt": math.log(2), "eta": -1.5, "cos_phi": math.cos(3), "sin_phi": math.sin(3)}
    expected["z0"] = 1.5  # of 50 mm
    assert_close(found[0, 0], torch.tensor([expected[name] for name in PARAMETER_NAMES]))
    assert found.isfinite().all()  # padding too


def test_estimates_undo_the_parameters_of_a_particle() -> None:
    particles = torch.tensor([[[1.5, -0.7, 2.5, -30.0, 1.0, 5.0]]])
    estimates = track_estimates(particle_parameters(particles))
    assert_close(estimates[..., :4], particles[..., :4])
    assert estimates[..., 4].isnan().all()
