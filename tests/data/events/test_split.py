"""Parts of events by event number."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepattn.data import DataError
from hepattn.data.events import EventSplit
from hepattn.data.events.split import PARTS

NUMBERS = np.arange(20_000) * 7919


@settings(max_examples=15, derandomize=True, deadline=None)
@given(
    tenths=st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(lambda x: sum(x) <= 10),
    method=st.sampled_from(["hash", "modulo"]),
    seed=st.integers(0, 5),
    offset=st.integers(0, 9),
)
def test_parts_are_disjoint_complete_and_of_their_shares(
    tenths: list[int], method: str, seed: int, offset: int
) -> None:
    shares = [number / 10 for number in (*tenths, 10 - sum(tenths))]
    split = EventSplit(*shares, method=method, seed=seed, offset=offset / 10)
    columns = {"event_number": NUMBERS}
    holds = np.stack([split.part(name).holds(columns, NUMBERS) for name in PARTS])
    assert (holds.sum(0) == 1).all()
    assert holds.mean(1) == pytest.approx(shares, abs=0.015)
    empty = np.array(shares) == 0
    assert not holds[empty].any()


def test_modulo_is_that_of_the_number() -> None:
    split = EventSplit(0.6, 0.2, 0.2, 0.0, method="modulo", modulus=5)
    expected = [(0, 0, 0, 1, 2)[number % 5] for number in range(-7, 40)]
    assert split.number(np.arange(-7, 40)).tolist() == expected


@pytest.mark.parametrize("method", ["hash", "modulo"])
def test_offsets_make_folds_that_cover_every_event_once(method: str) -> None:
    folds = [
        EventSplit(0.6, 0.2, 0.2, 0.0, method=method, offset=fold / 5).part("test")
        for fold in range(5)
    ]
    holds = np.stack([part.holds({"event_number": NUMBERS}, NUMBERS) for part in folds])
    assert (holds.sum(0) == 1).all()


def test_the_part_depends_on_the_number_alone() -> None:
    part = EventSplit(seed=3).part("train")
    whole = part.holds({"event_number": NUMBERS}, np.arange(20_000))
    order = np.random.default_rng(0).permutation(20_000)[:500]
    again = part.holds({"event_number": NUMBERS[order].astype(float)}, np.arange(500))
    assert (again == whole[order]).all()
    other = EventSplit(seed=4).part("train").holds({"event_number": NUMBERS}, NUMBERS)
    assert (other != whole).mean() > 0.2


def test_rows_serve_where_there_are_no_numbers() -> None:
    part = EventSplit(column=None).part("val")
    assert part.columns == frozenset()
    assert part.holds({}, NUMBERS).mean() == pytest.approx(0.1, abs=0.015)


def test_the_rule_is_written_down(tmp_path: Path) -> None:
    split = EventSplit(0.5, 0.2, 0.2, 0.1, seed=4)
    split.save(tmp_path / "split.json")
    assert EventSplit(**json.loads((tmp_path / "split.json").read_text())) == split


def test_wrong_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        EventSplit(0.7, 0.1, 0.1, 0.2)
    with pytest.raises(ValueError, match=r"share 0.75 must be a multiple of 1 / modulus = 1 / 10"):
        EventSplit(0.75, 0.05, 0.1, 0.1, method="modulo")
    with pytest.raises(ValueError, match="modulus=0"):
        EventSplit(modulus=0)
    with pytest.raises(ValueError, match="one of train, val, test, calib"):
        EventSplit().part("validation")
    with pytest.raises(DataError, match=r"event 1: event_number: found 2.5, expected whole"):
        EventSplit().part("val").holds({"event_number": np.array([1, 2.5])}, np.arange(2))
