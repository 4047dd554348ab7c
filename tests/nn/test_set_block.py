"""Set blocks treat packed and padded tokens alike, with either norm."""

# B events, N tokens, D features

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.packing import make_packing
from hepattn.nn.set_block import SetBlock, SetBlockOptions, TokenNorm
from hepattn.nn.set_norm import SetNorm
from hepattn.ops.attention import Full, make_plan

OPTIONS = SetBlockOptions(AttentionOptions(num_heads=2, head_dim=3, bias=False), expansion=2)
VALID = torch.arange(4) < torch.tensor([[3], [0], [4]])


@pytest.mark.parametrize("use_setnorm", [True, False])
def test_packed_tokens_get_the_answer_of_padded_ones(use_setnorm: bool) -> None:
    block = SetBlock(8, replace(OPTIONS, use_setnorm=use_setnorm))
    x, packing, plan = torch.randn(3, 4, 8), make_packing(VALID), make_plan(Full(), VALID)
    packed = block(packing.pack(x), plan, packing=packing)
    assert_close(packed, packing.pack(block(x, plan)), atol=1e-6, rtol=1e-6)


def test_the_option_decides_the_norm() -> None:
    assert isinstance(SetBlock(8, OPTIONS).dense_norm, SetNorm)
    assert isinstance(SetBlock(8, replace(OPTIONS, use_setnorm=False)).dense_norm, TokenNorm)


def test_tokens_that_see_an_empty_set_stay_what_they_are() -> None:
    block, x = SetBlock(8, OPTIONS), torch.randn(3, 2, 8)
    plan = make_plan(Full(), VALID, VALID.new_ones(3, 2))
    context = torch.randn(3, 4, 8)
    found = block(x, plan, context=context)
    alone = x + block.dense(block.dense_norm(x, plan.query_valid))
    assert_close(found[1], alone[1])
    assert not torch.equal(found[0], alone[0])


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"expansion": 0}])
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SetBlockOptions(**wrong)
