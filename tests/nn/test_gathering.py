"""Real objects of all kinds come first, in their order, wherever the padding was."""

# B events, N slots

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hepattn.nn.gathering import gather_objects

VALID = torch.tensor([[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()


def test_real_objects_come_first_in_their_order() -> None:
    gathering = gather_objects(VALID)
    x = torch.arange(15.0).view(3, 5).masked_fill(~VALID, float("nan"))
    assert gathering.valid.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert gathering.move(x).tolist() == [[0, 3, 4], [0, 0, 0], [11, 0, 0]]
    assert gathering.pack(x.unsqueeze(-1)).flatten().tolist() == [0, 3, 4, 11]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_a_loop_gathers_the_same(rows: list[list[bool]]) -> None:
    valid = torch.tensor(rows)
    x = torch.randn(*valid.shape, 2)
    gathering = gather_objects(valid)
    for found, real, row, mask in zip(gathering.move(x), gathering.valid, x, valid, strict=True):
        assert_close(found[real], row[mask])
        assert not found[~real].any()


def test_a_batch_without_objects_keeps_one_slot() -> None:
    gathering = gather_objects(torch.zeros(2, 3, dtype=torch.bool))
    assert gathering.valid.shape == (2, 1)
    assert gathering.pack(torch.ones(2, 3, 4)).shape == (0, 4)
