"""Rows in memory come once an epoch, shared by processes, and go on where they stopped."""

import copy
import pickle
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from hepattn.data import DataError
from hepattn.data.batching import EpochBatches, LengthBucketSampler, RowSampler
from hepattn.data.epoch_loader import EpochLoader


class Rows(NamedTuple):
    index: Tensor
    weight: Tensor


class Numbers(Dataset[Rows]):
    """Row i holds i."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitems__(self, rows: Sequence[int]) -> Rows:
        return Rows(torch.tensor(rows), torch.ones(len(rows)))


def keep(rows: Rows) -> Rows:
    return rows


def make(
    num: int, size: int, rank: int = 0, num_ranks: int = 1, **options: object
) -> EpochLoader[Rows]:
    batches = RowSampler(num, size * num_ranks, shuffle=True)
    return EpochLoader(Numbers(num), batches, keep, rank=rank, num_ranks=num_ranks, **options)


def real_rows(batches: list[Rows]) -> list[int]:
    return [int(i) for rows in batches for i in rows.index[rows.weight > 0]]


@given(num=st.integers(1, 40), size=st.integers(1, 5), num_ranks=st.integers(1, 4))
def test_processes_share_each_batch_of_one_process(num: int, size: int, num_ranks: int) -> None:
    ranks = [list(make(num, size, rank, num_ranks)) for rank in range(num_ranks)]
    one = list(make(num, size * num_ranks))
    assert {len(batches) for batches in ranks} == {len(one)}
    for step, whole in enumerate(one):
        shares = [batches[step] for batches in ranks]
        assert len({len(share.index) for share in shares}) == 1
        assert sorted(real_rows(shares)) == sorted(whole.index.tolist())


@given(num=st.integers(4, 40), size=st.integers(1, 5), num_ranks=st.integers(1, 4))
def test_an_evaluation_sees_each_row_once_and_no_other(num: int, size: int, num_ranks: int) -> None:
    ranks = [list(make(num, size, rank, num_ranks, is_filled=False)) for rank in range(num_ranks)]
    rows = [int(i) for batches in ranks for batch in batches for i in batch.index]
    assert sorted(rows) == list(range(num))


def test_an_evaluation_needs_a_row_for_each_process() -> None:
    with pytest.raises(DataError, match=r"1 row\(s\) are too few for 2 processes"):
        make(1, 4, 1, 2, is_filled=False)


def test_each_epoch_has_its_own_order() -> None:
    loader = make(20, 3)
    first, second = real_rows(list(loader)), real_rows(list(loader))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    loader.set_epoch(0)
    assert real_rows(list(loader)) == first


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("served", [0, 1, 4, 7])
def test_a_loader_goes_on_where_it_stopped(num_workers: int, served: int) -> None:
    loader = make(20, 3, num_workers=num_workers)
    list(loader)  # so that it is the second epoch
    iterator, batches = iter(loader), []
    for _ in range(served):
        batches.append(next(iterator))
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    rest = list(iterator)
    again = make(20, 3, num_workers=2 - num_workers)  # the number of workers does not matter
    again.load_state_dict(state)
    if served:
        again.set_epoch(1)  # as Lightning does
        assert real_rows(list(again)) == real_rows(rest)
    assert real_rows([*batches, *rest]) == real_rows(_epoch(1))


def _epoch(number: int) -> list[Rows]:
    loader = make(20, 3)
    loader.set_epoch(number)
    return list(loader)


def test_other_rows_are_refused_in_the_middle_of_an_epoch_alone() -> None:
    loader = make(20, 3)
    next(iter(loader))
    state = copy.deepcopy(loader.state_dict())
    with pytest.raises(ValueError, match=r"num_rows, num_batches: \[10, 4\] must be \[20, 7\]"):
        make(10, 3).load_state_dict(state)
    list(loader)
    make(10, 3).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_random_number_of_the_process_is_drawn(num_workers: int) -> None:
    torch.manual_seed(0)
    list(make(5, 2, num_workers=num_workers))
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


def test_rows_of_similar_length_are_shared_alike() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 64).tolist()
    ranks = [
        list(
            EpochLoader(Numbers(64), LengthBucketSampler(lengths, 8), keep, rank=rank, num_ranks=2)
        )
        for rank in range(2)
    ]
    longest = [[max(lengths[i] for i in rows.index) for rows in batches] for batches in ranks]
    apart = np.abs(np.subtract(*longest))
    assert apart.mean() < 5


@pytest.mark.parametrize("sampler", [RowSampler(7, 3), LengthBucketSampler([1] * 7, 3)])
def test_samplers_yield_every_row_once(sampler: EpochBatches) -> None:
    assert sorted(i for batch in sampler for i in batch) == list(range(7))
    assert len(sampler) == 3


def test_rows_in_order_stay_in_order() -> None:
    assert list(RowSampler([4, 2, 9], 2)) == [[4, 2], [9]]
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        RowSampler(3, 0)


def test_a_rank_must_be_among_the_ranks() -> None:
    with pytest.raises(ValueError, match="rank=2 must be from 0 to num_ranks - 1 = 1"):
        make(3, 1, 2, 2)
