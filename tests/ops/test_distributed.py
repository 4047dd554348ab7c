"""A mean over processes counts every value once, however unevenly they are shared."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.testing import assert_close

from hepattn.ops.distributed import (
    mean_over_processes,
    num_processes,
    process_rank,
    weighted_mean,
)

VALUES = torch.tensor([1.0, -2.0, 4.0, 0.5, 3.0])
WEIGHTS = torch.tensor([1.0, 0.0, 2.0, 3.0, 0.5])
SHARES = (slice(0, 4), slice(4, 5))


def loss(scale: Tensor, share: slice) -> Tensor:
    return weighted_mean((scale * VALUES[share]).exp(), WEIGHTS[share])


def run_process(rank: int, folder: Path) -> None:
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        assert process_rank() == (rank, 2)
        scale = torch.tensor(0.3, requires_grad=True)
        loss(scale, SHARES[rank]).backward()
        nothing = weighted_mean(VALUES[:0], WEIGHTS[:0]) if rank else weighted_mean(VALUES)
        with torch.no_grad():  # each its own, as an evaluation needs no equal steps
            alone = loss(scale, SHARES[rank]) if rank else torch.tensor(0.0)
        torch.save((scale.grad, nothing, alone), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_gradients_of_unequal_shares_average_to_those_of_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_process, (tmp_path,), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    scale = torch.tensor(0.3, requires_grad=True)
    whole = loss(scale, slice(None))
    whole.backward()
    assert_close((parts[0][0] + parts[1][0]) / 2, scale.grad)
    assert_close((parts[0][1] + parts[1][1]) / 2, VALUES.mean())
    assert_close(parts[1][2], loss(scale, SHARES[1]).detach())


def test_one_process_has_plain_means() -> None:
    assert process_rank() == (0, 1)
    assert num_processes() == 1
    assert_close(weighted_mean(VALUES, WEIGHTS), (VALUES * WEIGHTS).sum() / WEIGHTS.sum())
    assert_close(weighted_mean(VALUES), VALUES.mean())
    assert mean_over_processes(torch.tensor(3)) == 3


@pytest.mark.parametrize("weight", [torch.zeros(5), torch.zeros(5, dtype=torch.bool)])
def test_what_weighs_nothing_has_a_mean_and_gradients_of_zero(weight: Tensor) -> None:
    value = VALUES.clone().requires_grad_()
    mean = weighted_mean(value, weight)
    mean.backward()
    assert mean == 0
    assert_close(value.grad, torch.zeros(5))


def test_weights_of_a_row_are_those_of_its_columns() -> None:
    value = torch.arange(6.0).view(2, 3)
    assert weighted_mean(value, torch.tensor([[1.0], [0.0]])) == 1.0
