import numpy as np
import pytest

from hepattn.data import LengthBucketSampler

LENGTHS = np.random.default_rng(0).integers(50, 1000, size=437).tolist()


def padding(batches: list[list[int]]) -> float:
    """Share of padded slots."""
    padded = sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(LENGTHS) / padded


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_tokens", [None, 2000, 100])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_event_comes_once_an_epoch(shuffle: bool, max_tokens: int | None, epoch: int) -> None:
    sampler = LengthBucketSampler(LENGTHS, 8, max_tokens, shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))
    assert len(sampler) == len(batches)


def test_batches_respect_both_bounds() -> None:
    for batch in LengthBucketSampler(LENGTHS, max_events=8, max_tokens=900):
        longest = max(LENGTHS[i] for i in batch)
        assert len(batch) <= 8
        assert longest * len(batch) <= 900 or len(batch) == 1


def test_lengths_in_a_batch_are_similar() -> None:
    unsorted = [list(range(start, min(start + 8, 437))) for start in range(0, 437, 8)]
    assert padding(list(LengthBucketSampler(LENGTHS, 8))) < 0.05 < 0.3 < padding(unsorted)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, again = LengthBucketSampler(LENGTHS, 8, seed=1), LengthBucketSampler(LENGTHS, 8, seed=1)
    other = LengthBucketSampler(LENGTHS, 8, seed=2)
    assert list(first) == list(again) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
    again.set_epoch(0)
    assert list(first) == list(again)


def test_long_and_short_batches_are_mixed() -> None:
    means = [np.mean([LENGTHS[i] for i in batch]) for batch in LengthBucketSampler(LENGTHS, 8)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_without_shuffling_lengths_ascend() -> None:
    lengths = [
        LENGTHS[i] for batch in LengthBucketSampler(LENGTHS, 8, shuffle=False) for i in batch
    ]
    assert lengths == sorted(LENGTHS)


def test_events_without_tokens_fill_a_batch() -> None:
    assert list(LengthBucketSampler([0] * 4, 8, max_tokens=10, shuffle=False)) == [[0, 1, 2, 3]]


def test_no_events_give_no_batches() -> None:
    assert list(LengthBucketSampler([], 8)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [3, -1], "max_events": 1}, "lengths hold -1"),
        ({"lengths": [3], "max_events": 0}, "max_events=0 must be at least 1"),
        ({"lengths": [3], "max_events": 1, "max_tokens": 0}, "max_tokens=0 must be at least 1"),
    ],
)
def test_bounds_must_make_sense(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LengthBucketSampler(**options)
