"""Tracking figures against events by hand and loops over tracks, hits and particles."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hepattn.metrics.track_matching import CRITERIA, TrackStatus, match_tracks, track_status
from hepattn.metrics.tracking import TrackingMetrics, trackml_score

FAKE, FOUND, DUPLICATE, OUTSIDE = TrackStatus
NONE = -1
Event = dict[str, list[int]]


def event(
    track: list[int], particle_id: list[int], targets: list[int], **lost: int
) -> dict[str, Tensor]:
    """A batch of one event; ``p7=2`` says that the filter took two hits of particle 7."""
    size = Counter(particle_id)
    before = [size[p] + lost.get(f"p{p}", 0) if p else 0 for p in particle_id]
    index = [targets.index(p) if p in targets else -1 for p in particle_id]
    batch = {"track": track, "particle_id": particle_id, "num_particle_hits": before}
    batch |= {"particle_index": index, "valid": [True] * len(track)}
    batch |= {"particles": [[float(p), 0.5 * p] for p in targets]}
    batch |= {"particle_valid": [True] * len(targets)}
    return {name: torch.tensor([value]) for name, value in batch.items()}


def judge(batch: dict[str, Tensor], after_filter: bool = False) -> dict[str, list[int]]:
    """Status of the tracks in the order of their indices, by criterion."""
    names = ("track", "valid", "particle_id", "num_particle_hits", "particle_index")
    matches = match_tracks(**{name: batch[name] for name in names})
    return dict(zip(CRITERIA, track_status(matches, after_filter).T.tolist(), strict=True))


def collect(*batches: dict[str, Tensor]) -> TrackingMetrics:
    metrics = TrackingMetrics()
    for number, batch in enumerate(batches):
        metrics.update(**batch, event=torch.tensor([number]))
    return metrics


def test_a_track_belongs_to_the_particle_with_most_shared_hits() -> None:
    batch = event([0, 0, 0, 0, 2, 2], [7, 7, 9, 0, 9, 9], [9])
    names = ("track", "valid", "particle_id", "num_particle_hits", "particle_index")
    matches = match_tracks(**{name: batch[name] for name in names})
    assert matches.track.tolist() == [0, 2]
    assert matches.particle_id.tolist() == [7, 9]
    assert matches.num_hits.tolist() == [4, 2]
    assert matches.num_shared.tolist() == [2, 2]
    assert matches.particle_index.tolist() == [-1, 0]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 2, 0], [2, 3, 0, 1]])
def test_a_tie_goes_to_the_lower_id_and_satisfies_nothing(order: list[int]) -> None:
    particle_id = [[5, 5, 3, 3][i] for i in order]
    batch = event([0] * 4, particle_id, [3, 5])
    names = ("track", "valid", "particle_id", "num_particle_hits", "particle_index")
    assert match_tracks(**{name: batch[name] for name in names}).particle_id.tolist() == [3]
    assert judge(batch) == {name: [FAKE] for name in CRITERIA}


def test_exactly_half_is_no_majority() -> None:
    half_precision = event([0, 0, 0, 0], [7, 7, 0, 0], [7])
    half_recall = event([0, 0, NONE, NONE], [7, 7, 7, 7], [7])
    assert judge(half_precision)["double_majority"] == [FAKE]
    assert judge(half_recall)["double_majority"] == [FAKE]
    assert judge(event([0, 0, 0, NONE, 0], [7, 7, 7, 7, 0], [7]))["double_majority"] == [FOUND]


def test_exactly_three_quarters_is_not_enough_for_lhc() -> None:
    assert judge(event([0] * 4, [7, 7, 7, 0], [7]))["lhc"] == [FAKE]
    assert judge(event([0] * 5, [7, 7, 7, 7, 0], [7]))["lhc"] == [FOUND]


def test_perfect_means_all_hits_and_no_other() -> None:
    tracks = [0, 0, 0, 1, 1, NONE, 2, 2, 2, 2]
    batch = event(tracks, [1, 1, 1, 2, 2, 2, 3, 3, 3, 0], [1, 2, 3])
    assert judge(batch)["perfect"] == [FOUND, FAKE, FAKE]
    assert judge(batch)["double_majority"] == [FOUND, FOUND, FOUND]


def test_a_second_lhc_track_of_a_target_is_a_duplicate() -> None:
    batch = event([0, 1, 1, 1, 2, 2, 2], [7] * 7, [7])
    assert judge(batch)["lhc"] == [DUPLICATE, FOUND, DUPLICATE]  # most hits, then lowest index
    figures = collect(batch).figures()
    assert figures.lhc.duplicate_rate.value == 2 / 3
    assert figures.lhc.fake_rate.value == 0
    assert figures.lhc.efficiency.value == 1
    assert figures.double_majority.fake_rate.value == 1


def test_a_track_of_noise_is_a_fake_of_no_particle() -> None:
    batch = event([0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 7], [7])
    names = ("track", "valid", "particle_id", "num_particle_hits", "particle_index")
    matches = match_tracks(**{name: batch[name] for name in names})
    assert matches.particle_id.tolist() == [0, 7]
    assert matches.num_shared.tolist() == [0, 1]
    assert judge(batch) == {name: [FAKE, FAKE] for name in CRITERIA}


def test_a_track_of_a_particle_that_is_no_target_is_neither_found_nor_fake() -> None:
    batch = event([0, 0, 0, 1, 1, 1, 2, 2], [7, 7, 7, 8, 8, 8, 0, 0], [8])
    figures = collect(batch).figures()
    for criterion in (figures.double_majority, figures.perfect, figures.lhc):
        assert criterion.efficiency.value == 1
        assert criterion.fake_rate.value == 1 / 3
        assert criterion.outside_rate.value == 1 / 3
        assert criterion.strict_fake_rate.value == 2 / 3


def test_recall_counts_the_hits_that_the_filter_took() -> None:
    batch = event([0, 0, 0, 1, 1, 1], [1, 1, 1, 2, 2, 2], [1, 2], p1=3, p2=2)
    assert judge(batch)["double_majority"] == [FAKE, FOUND]
    assert judge(batch)["perfect"] == [FAKE, FAKE]
    assert judge(batch, after_filter=True)["perfect"] == [FOUND, FOUND]


def test_a_particle_without_hits_left_counts_before_the_filter_only() -> None:
    batch = event([0, 0, 0, 1, 1], [1, 1, 1, 2, 2], [1, 2, 3], p2=1)
    metrics = collect(batch)
    assert metrics.figures().double_majority.efficiency.value == 2 / 3
    assert metrics.figures(after_filter=True).num_particles == 1  # the second has two hits left
    assert metrics.figures(after_filter=True).double_majority.efficiency.value == 1
    assert metrics.particle_table().num_left.tolist() == [3, 2, 0]


def test_events_without_tracks_or_particles_give_no_rates() -> None:
    figures = collect(event([NONE] * 3, [1, 1, 1], [1])).figures()
    assert figures.lhc.efficiency.value == 0
    assert np.isnan(figures.lhc.fake_rate.value)
    nothing = event([0, 0], [0, 0], [1])
    nothing["particle_valid"][:] = False
    figures = collect(nothing).figures()
    assert np.isnan(figures.lhc.efficiency.value)
    assert figures.scalars()["lhc_fake_rate"] == 1


def test_tables_carry_the_fit_beside_the_truth() -> None:
    batch = event([3, 3, 3, 1, 1, 1], [7, 7, 7, 0, 0, 0], [7])
    batch["fit"] = torch.arange(20.0).view(1, 4, 5)
    table = collect(batch).track_table()
    assert table.track.tolist() == [1, 3]
    assert table.fit.tolist() == batch["fit"][0, [1, 3]].tolist()
    assert table.truth[1].tolist() == [7.0, 3.5]
    assert table.truth[0].isnan().all()
    assert table.precision.tolist() == [0, 1]
    assert table.recall.tolist() == [0, 1]


def test_min_hits_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="min_hits=0 must be at least 1"):
        TrackingMetrics(min_hits=0)


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Tensor]:
    """Random batches: padded, with noise, outsiders, lost hits and particles of equal ids."""
    num_events, num_hits = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (num_events, num_hits)
    valid = np.arange(num_hits) < generator.integers(0, num_hits + 1, (num_events, 1))
    particle = generator.integers(0, 6, shape)  # 0 noise, 1 to 3 targets, 4 and 5 others
    # a track mostly follows its particle
    track = np.where(generator.random(shape) < draw(st.sampled_from([0.0, 0.7, 1.0])),
                     particle - 1, generator.integers(-1, 5, shape))  # fmt: skip
    lost = generator.integers(0, 3, (num_events, 6)) * draw(st.integers(0, 1))
    left = np.stack([np.bincount(p[v], minlength=6) for p, v in zip(particle, valid, strict=True)])
    before = np.take_along_axis(left + lost, particle, 1)
    ids = np.array([0, 2**60 + 5, 3, 2**60 + 4, 11, 7])
    target = (particle >= 1) & (particle <= 3)
    padding = ~valid  # of which nothing may be read
    arrays = {
        "track": np.where(padding, 2, track),
        "valid": valid,
        "particle_id": np.where(padding, 3, ids[particle]),
        "num_particle_hits": np.where(padding, 1, np.where(particle == 0, 0, before)),
        "particle_index": np.where(target | padding, (particle - 1).clip(0, 2), -1),
        "particles": generator.random((num_events, 4, 6)),
        "particle_valid": np.broadcast_to([True, True, True, False], (num_events, 4)).copy(),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def loop(batch: dict[str, Tensor], after: bool, min_hits: int) -> dict[str, Counter]:
    """Count by the definitions, a track at a time."""
    counts = {name: Counter() for name in CRITERIA}
    for row in range(len(batch["track"])):
        hits = [i for i, real in enumerate(batch["valid"][row].tolist()) if real]
        field = {name: batch[name][row].tolist() for name in batch}
        left = Counter(field["particle_id"][i] for i in hits)
        total = {field["particle_id"][i]: field["num_particle_hits"][i] for i in hits}
        targets = {field["particle_id"][i]: field["particle_index"][i] for i in hits}
        tracks: dict[int, list[int]] = {}
        for i in hits:
            if field["track"][i] >= 0:
                tracks.setdefault(field["track"][i], []).append(field["particle_id"][i])
        kept = {
            p for p in range(3)
            if not after or sum(left[q] for q, t in targets.items() if t == p) >= min_hits
        }  # fmt: skip
        for name in CRITERIA:
            counts[name]["particles"] += len(kept)
            good: dict[int, list[int]] = {}
            for _, owners in sorted(tracks.items()):
                counts[name]["tracks"] += 1
                shared = Counter(p for p in owners if p)
                best = min(shared, key=lambda p: (-shared[p], p), default=0)
                if not best:
                    counts[name]["fake"] += 1
                    continue
                precision = Fraction(shared[best], len(owners))
                recall = Fraction(shared[best], (left if after else total)[best])
                passed = {
                    "double_majority": precision > Fraction(1, 2) and recall > Fraction(1, 2),
                    "perfect": precision == 1 and recall == 1,
                    "lhc": precision > Fraction(3, 4),
                }[name]
                counts[name]["fake"] += not passed
                if passed and targets[best] < 0:
                    counts[name]["outside"] += 1
                elif passed:
                    good.setdefault(targets[best], []).append(shared[best])
            counts[name]["duplicate"] += sum(len(own) - 1 for own in good.values())
            counts[name]["found"] += len(set(good) & kept)
    return counts


@pytest.mark.parametrize("after", [False, True])
@settings(max_examples=40, deadline=None)
@given(batch=batches())
def test_figures_count_as_a_loop_does(after: bool, batch: dict[str, Tensor]) -> None:
    metrics = TrackingMetrics(min_hits=2)
    metrics.update(**batch, event=torch.arange(len(batch["track"])))
    figures, expected = metrics.figures(after), loop(batch, after, min_hits=2)
    for name in CRITERIA:
        found, wanted = getattr(figures, name), expected[name]
        assert (figures.num_particles, figures.num_tracks) == (
            wanted["particles"],
            wanted["tracks"],
        )
        if wanted["particles"]:
            assert found.efficiency.value == wanted["found"] / wanted["particles"]
        if wanted["tracks"]:
            assert found.fake_rate.value == wanted["fake"] / wanted["tracks"]
            assert found.duplicate_rate.value == wanted["duplicate"] / wanted["tracks"]
            assert found.outside_rate.value == wanted["outside"] / wanted["tracks"]


@settings(max_examples=15, deadline=None)
@given(batch=batches(), seed=st.integers(0, 99))
def test_figures_forget_the_order_of_the_hits(batch: dict[str, Tensor], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(batch["track"].shape[1])
    per_hit = ("track", "valid", "particle_id", "num_particle_hits", "particle_index")
    shuffled = batch | {name: batch[name][:, order] for name in per_hit}
    numbers = torch.arange(len(batch["track"]))
    scalars = []
    for version in (batch, shuffled):
        metrics = TrackingMetrics()
        metrics.update(**version, event=numbers)
        scalars.append(metrics.figures().scalars())
    assert scalars[0] == pytest.approx(scalars[1], nan_ok=True)


def naive_score(track: list[int], particle_id: list[int], weight: list[float]) -> float:
    """The challenge's definition, a track and a particle at a time."""
    score = 0.0
    for name in {t for t in track if t >= 0}:
        members = [i for i, t in enumerate(track) if t == name]
        for particle in {particle_id[i] for i in members} - {0}:
            shared = [i for i in members if particle_id[i] == particle]
            if 2 * len(shared) > len(members) and 2 * len(shared) > particle_id.count(particle):
                score += sum(weight[i] for i in shared)
    return score / sum(weight)


@settings(max_examples=60, deadline=None)
@given(
    hits=st.lists(
        st.tuples(st.integers(-1, 3), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=25
    ),
    stride=st.sampled_from([1, 10**15]),
)
def test_score_is_that_of_the_challenge(hits: list[tuple], stride: int) -> None:
    track, particle_id, weight = map(list, zip(*[*hits, (-1, 0, 1)], strict=True))
    track = [t * stride if t > 0 else t for t in track]
    found = trackml_score(*map(torch.tensor, (track, particle_id, weight)))
    assert found == pytest.approx(naive_score(track, particle_id, weight), abs=1e-12)


def test_all_hits_on_their_own_tracks_score_the_weight_of_particles() -> None:
    particle_id = torch.tensor([4, 4, 4, 9, 9, 0, 0])
    weight = torch.tensor([1.0, 2, 3, 4, 5, 0, 0])
    assert trackml_score(particle_id, particle_id, weight) == 1
    assert trackml_score(torch.full_like(particle_id, -1), particle_id, weight) == 0


def test_weights_of_zero_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match=r"weights sum to 0\.0"):
        trackml_score(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.0]))
