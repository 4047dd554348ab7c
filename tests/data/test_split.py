import json
import random
from pathlib import Path

import pytest

from hepattn.data import DataError, split_events

NAMES = [f"event{number:09d}" for number in range(200)]


@pytest.mark.parametrize("num_events", [3, 4, 5, 7, 10, 11, 99, 200])
@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.98, 0.01, 0.01), (1 / 3, 1 / 3, 1 / 3)])
def test_parts_are_disjoint_complete_and_not_empty(
    num_events: int, fractions: tuple[float, float, float]
) -> None:
    split = split_events(NAMES[:num_events], fractions)
    parts = (split.train, split.val, split.test)
    assert sorted(name for part in parts for name in part) == NAMES[:num_events]
    assert all(parts)


def test_parts_have_the_sizes_that_were_asked_for() -> None:
    split = split_events(NAMES, (0.7, 0.2, 0.1))
    assert [len(part) for part in (split.train, split.val, split.test)] == [140, 40, 20]


def test_the_order_of_listing_does_not_matter() -> None:
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    assert split_events(shuffled, seed=3) == split_events(NAMES, seed=3)
    assert split_events(NAMES, seed=4).train != split_events(NAMES, seed=3).train


def test_the_draw_never_changes() -> None:
    assert split_events(NAMES[:5], (0.6, 0.2, 0.2), seed=0).test == ("event000000003",)


def test_a_part_with_no_share_is_empty() -> None:
    split = split_events(NAMES, (0.9, 0.1, 0.0))
    assert split.test == ()
    assert len(split.train) == 180


@pytest.mark.parametrize("num_events", [1, 2])
def test_one_or_two_events_are_shared_with_a_warning(num_events: int) -> None:
    with pytest.warns(UserWarning, match="no figure will be one of unseen events"):
        split = split_events(NAMES[:num_events])
    assert sorted(split.train) == NAMES[:num_events]
    assert split.train == split.val == split.test


def test_a_split_is_written_down(tmp_path: Path) -> None:
    split = split_events(NAMES[:10], seed=5)
    split.save(tmp_path / "split.json")
    saved = json.loads((tmp_path / "split.json").read_text())
    assert saved["seed"] == 5
    assert [tuple(saved[part]) for part in ("train", "val", "test")] == [
        split.train,
        split.val,
        split.test,
    ]


@pytest.mark.parametrize("fractions", [(0.5, 0.1, 0.1), (1.2, -0.1, -0.1)])
def test_fractions_must_be_shares(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative and must sum to 1"):
        split_events(NAMES, fractions)


def test_names_must_be_there_once() -> None:
    with pytest.raises(DataError, match="no events to split"):
        split_events([])
    with pytest.raises(DataError, match="found event000000001 twice"):
        split_events([*NAMES, NAMES[1]])
