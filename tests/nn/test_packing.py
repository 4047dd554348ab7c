"""Packing takes the padding away and puts it back."""

import torch
from torch.testing import assert_close

from hepattn.nn.packing import make_packing

VALID = torch.arange(4) < torch.tensor([2, 0, 4, 1])[:, None]


def test_packed_tokens_are_the_real_ones_in_order() -> None:
    x = torch.randn(4, 4, 3)
    packed = make_packing(VALID).pack(x)
    assert_close(packed, x[VALID])
    assert_close(make_packing(VALID).unpack(packed), x.masked_fill(~VALID.unsqueeze(-1), 0.0))


def test_a_full_batch_is_not_copied() -> None:
    x = torch.randn(4, 4, 3)
    packing = make_packing(torch.ones(4, 4, dtype=torch.bool))
    assert packing.pack(x).data_ptr() == packing.unpack(packing.pack(x)).data_ptr() == x.data_ptr()


def test_a_joined_token_is_the_first_of_its_event() -> None:
    for valid in (VALID, torch.ones_like(VALID)):
        x, first, packing = torch.randn(4, 4, 3), torch.randn(4, 3), make_packing(valid)
        joined = packing.join(first, packing.pack(x))
        expected = torch.cat([first.unsqueeze(1), x.masked_fill(~valid.unsqueeze(-1), 0.0)], 1)
        assert_close(packing.with_first().unpack(joined), expected)
