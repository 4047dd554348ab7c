"""A first block may drop the residual of attention or the norm before it."""

# B events, N tokens, D features

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.first_block import FirstBlock
from hepattn.nn.packing import make_packing
from hepattn.nn.particle_block import BlockOptions, ParticleBlock
from hepattn.ops.attention import Full, make_plan

OPTIONS = BlockOptions("prenorm", AttentionOptions(num_heads=2), dropout=0.0)
VALID = torch.arange(4) < torch.tensor([[3], [1]])


def test_with_residual_and_norm_it_is_an_ordinary_block() -> None:
    first, block = FirstBlock(8, OPTIONS).eval(), ParticleBlock(8, OPTIONS).eval()
    first.load_state_dict(block.state_dict())
    packing, plan = make_packing(VALID), make_plan(Full(), VALID)
    x = packing.pack(torch.randn(2, 4, 8))
    assert torch.equal(first(x, plan, packing, None), block(x, plan, packing, None))


def test_attention_that_may_be_dropped_needs_the_residual() -> None:
    options = replace(OPTIONS, drop_path=0.1)
    FirstBlock(8, options, has_norm=False)
    with pytest.raises(ValueError, match=r"drop_path=0.1 .* keep the residual"):
        FirstBlock(8, options, has_residual=False)


def test_without_residual_and_norm_attention_alone_reaches_the_dense_net() -> None:
    block = FirstBlock(8, OPTIONS, has_residual=False, has_norm=False).eval()
    packing, plan = make_packing(VALID), make_plan(Full(), VALID)
    x = packing.pack(torch.randn(2, 4, 8))
    update, _ = block.attention(x, plan, packing=packing)
    assert_close(block(x, plan, packing, None), block.add_dense(update, packing))
