"""The attention layer against torch's own, and its options against their definitions."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hepattn.nn.attention import Attention
from hepattn.ops.attention import Full, attention_weights, make_plan

VALID = torch.arange(7) < torch.tensor([[7], [4]])


def test_cross_attention_equals_torchs_own() -> None:
    layer = Attention(12, num_heads=3)
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    projections = (layer.query, layer.key_value)
    reference.load_state_dict(
        {
            "in_proj_weight": torch.cat([p.weight for p in projections]),
            "in_proj_bias": torch.cat([p.bias for p in projections]),
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    plan = make_plan(Full(), VALID, torch.ones(2, 5).bool())
    expected, _ = reference(x, context, context, key_padding_mask=~VALID)
    assert_close(layer(x, plan, context)[0], expected, atol=1e-6, rtol=1e-5)


def test_shared_value_heads_equal_repeated_ones() -> None:
    shared, full = Attention(12, num_heads=6, num_value_heads=2), Attention(12, num_heads=6)
    full.load_state_dict(shared.state_dict() | {
        name: torch.cat([
            half.unflatten(0, (2, 2)).repeat_interleave(3, 0).flatten(0, 1)
            for half in parameter.chunk(2)
        ])
        for name, parameter in shared.state_dict().items() if name.startswith("key_value")
    })  # fmt: skip
    x, plan = torch.randn(2, 7, 12), make_plan(Full(), VALID)
    assert_close(shared(x, plan)[0], full(x, plan)[0])


def test_value_residual_mixes_in_the_first_layers_values() -> None:
    layer = Attention(8, num_heads=2, value_residual="fixed")
    plain = Attention(8, num_heads=2)
    plain.load_state_dict(layer.state_dict())
    x, plan = torch.randn(2, 7, 8), make_plan(Full(), VALID)
    _, values = plain(x, plan)
    assert_close(layer(x, plan, first_values=values)[0], plain(x, plan)[0])
    doubled = layer(x, plan, first_values=3 * values)[0]  # (v + 3 v) / 2 = 2 v
    assert_close(doubled - layer.out.bias, 2 * (plain(x, plan)[0] - plain.out.bias))


@pytest.mark.parametrize("num_value_heads", [4, 2])
def test_similarity_init_attends_to_tokens_like_oneself(num_value_heads: int) -> None:
    layer = Attention(64, num_heads=4, num_value_heads=num_value_heads, similarity_init=4.0)
    x = torch.randn(1, 10, 64)
    q = layer._split(layer.query(x))
    k = layer._split(layer.key_value(x).chunk(2, -1)[0])
    weights = attention_weights(q, k, plan=make_plan(Full(), torch.ones(1, 10).bool()))
    served = weights[:, :: 4 // num_value_heads]  # the heads that share their key's projection
    assert served.diagonal(dim1=2, dim2=3).mean() > 0.9
    independent = Attention(64, num_heads=4)
    q, k = layer._split(independent.query(x)), layer._split(independent.key_value(x)[..., :64])
    weights = attention_weights(q, k, plan=make_plan(Full(), torch.ones(1, 10).bool()))
    assert weights.diagonal(dim1=2, dim2=3).mean() < 0.2


def test_similarity_init_leaves_the_values_alone() -> None:
    torch.manual_seed(1)
    plain = Attention(8, num_heads=2)
    torch.manual_seed(1)
    similar = Attention(8, num_heads=2, similarity_init=2.0)
    assert_close(similar.key_value.weight[8:], plain.key_value.weight[8:])
    assert_close(similar.query.weight, 2 * plain.query.weight)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="num_heads=5 must divide dim=12"):
        Attention(12, num_heads=5)
    with pytest.raises(ValueError, match="num_value_heads=4 must divide num_heads=6"):
        Attention(12, num_heads=6, num_value_heads=4)


def test_a_similarity_that_a_norm_would_undo_is_refused() -> None:
    with pytest.raises(ValueError, match="qkv_norm=RMSNorm, which would undo it"):
        Attention(12, num_heads=6, qkv_norm="RMSNorm", similarity_init=2.0)
