"""The attention layer against torch's own, and its options against their definitions."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.positional import Coordinate
from hepattn.nn.rotary import Rotary, rotate
from hepattn.ops.attention import Full, attention, attention_weights, make_plan

VALID = torch.arange(7) < torch.tensor([[7], [4]])


def make(
    dim: int, qkv_norm: str | None = None, residual: str = "none", **options: object
) -> Attention:
    return Attention(dim, AttentionOptions(**options), qkv_norm, residual)


def test_cross_attention_equals_torchs_own() -> None:
    layer = make(12, num_heads=3)
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
    shared, full = make(12, num_heads=6, num_value_heads=2), make(12, num_heads=6)
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
    layer = make(8, residual="fixed", num_heads=2)
    plain = make(8, num_heads=2)
    plain.load_state_dict(layer.state_dict())
    x, plan = torch.randn(2, 7, 8), make_plan(Full(), VALID)
    _, values = plain(x, plan)
    assert_close(layer(x, plan, first_values=values)[0], plain(x, plan)[0])
    doubled = layer(x, plan, first_values=3 * values)[0]  # (v + 3 v) / 2 = 2 v
    assert_close(doubled - layer.out.bias, 2 * (plain(x, plan)[0] - plain.out.bias))


@pytest.mark.parametrize("num_value_heads", [4, 2])
def test_similarity_init_attends_to_tokens_like_oneself(num_value_heads: int) -> None:
    layer = make(64, num_heads=4, num_value_heads=num_value_heads, similarity_init=4.0)
    x = torch.randn(1, 10, 64)
    q = layer._split(layer.query(x))
    k = layer._split(layer.key_value(x).chunk(2, -1)[0])
    weights = attention_weights(q, k, plan=make_plan(Full(), torch.ones(1, 10).bool()))
    served = weights[:, :: 4 // num_value_heads]  # the heads that share their key's projection
    assert served.diagonal(dim1=2, dim2=3).mean() > 0.9
    independent = make(64, num_heads=4)
    q, k = layer._split(independent.query(x)), layer._split(independent.key_value(x)[..., :64])
    weights = attention_weights(q, k, plan=make_plan(Full(), torch.ones(1, 10).bool()))
    assert weights.diagonal(dim1=2, dim2=3).mean() < 0.2


def test_similarity_init_leaves_the_values_alone() -> None:
    torch.manual_seed(1)
    plain = make(8, num_heads=2)
    torch.manual_seed(1)
    similar = make(8, num_heads=2, similarity_init=2.0)
    assert_close(similar.key_value.weight[8:], plain.key_value.weight[8:])
    assert_close(similar.query.weight, 2 * plain.query.weight)


def project(layer: Attention, x: torch.Tensor, what: str) -> torch.Tensor:
    """Queries, keys or values (B, H, N, E) of tokens."""
    rows = {"q": layer.query, "k": layer.key_value, "v": layer.key_value}[what]
    start, stop = {"q": (0, None), "k": (0, 12), "v": (12, None)}[what]
    out = x @ rows.weight[start:stop].T + rows.bias[start:stop]
    return layer._split(out)


def test_positions_enter_queries_and_keys_but_not_values() -> None:
    layer = make(12, num_heads=3)
    x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    here, there = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    plan = make_plan(Full(), VALID, torch.ones(2, 5).bool())
    expected = attention(
        project(layer, x + here, "q"),
        project(layer, context + there, "k"),
        project(layer, context, "v"),
        plan=plan,
    )
    expected = layer.out(expected.transpose(1, 2).flatten(2))
    out, _ = layer(x, plan, context, position=here, context_position=there)
    assert_close(out, expected)


def test_in_self_attention_one_position_serves_queries_and_keys() -> None:
    layer = make(12, num_heads=3, bias=False)
    x, position, plan = torch.randn(2, 7, 12), torch.randn(2, 7, 12), make_plan(Full(), VALID)
    expected, _ = layer(
        x,
        make_plan(Full(), VALID, VALID),
        context=x,
        position=position,
        context_position=position,
    )
    assert_close(layer(x, plan, position=position)[0], expected)


def test_rotation_comes_after_the_norms() -> None:
    layer = make(12, qkv_norm="RMSNorm", num_heads=3)
    for norm in layer.norms:
        nn.init.normal_(norm.weight)
    x, plan = torch.randn(2, 7, 12), make_plan(Full(), VALID)
    rotation = Rotary(4, 3, [Coordinate("r")], alpha=1.0)(torch.randn(2, 7, 1))
    q, k, v = (norm(project(layer, x, w)) for norm, w in zip(layer.norms, "qkv", strict=True))
    expected = attention(rotate(q, rotation), rotate(k, rotation), v, plan=plan)
    expected = layer.out(expected.transpose(1, 2).flatten(2))
    assert_close(layer(x, plan, rotary=rotation)[0], expected)


def test_rotation_of_a_context_is_its_own() -> None:
    layer = make(12, num_heads=3)
    x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    rotary = Rotary(4, 3, [Coordinate("r")], alpha=1.0)
    r, context_r, shift = torch.randn(2, 5, 1), torch.randn(2, 7, 1), torch.tensor(0.7)
    plan = make_plan(Full(), VALID, torch.ones(2, 5).bool())
    out, _ = layer(x, plan, context, rotary=rotary(r), context_rotary=rotary(context_r))
    moved = (rotary(r + shift), rotary(context_r + shift))
    same, _ = layer(x, plan, context, rotary=moved[0], context_rotary=moved[1])
    other, _ = layer(x, plan, context, rotary=rotary(r), context_rotary=moved[1])
    assert_close(out, same, atol=1e-6, rtol=1e-4)
    assert (out - other).abs().max() > 1e-3


def test_output_gate_starts_three_quarters_open_and_follows_its_formula() -> None:
    gated, plain = make(12, num_heads=3, output_gate=True), make(12, num_heads=3)
    plain.load_state_dict(gated.state_dict(), strict=False)
    x, plan = torch.randn(2, 7, 12), make_plan(Full(), VALID)
    plain.out = nn.Identity()
    inside = plain(x, plan)[0]
    assert_close(gated(x, plan)[0], gated.out(inside * torch.tensor(1.0).sigmoid()))
    nn.init.normal_(gated.gate.weight)
    gate = (x @ gated.gate.weight.T + 1).sigmoid()
    assert_close(gated(x, plan)[0], gated.out(inside * gate))


def test_dropout_of_weights_acts_in_training_only() -> None:
    layer = make(12, num_heads=3, dropout=0.5)
    x, plan = torch.randn(2, 7, 12), make_plan(Full(), VALID)
    assert not torch.equal(layer(x, plan)[0], layer(x, plan)[0])
    layer.eval()
    assert_close(layer(x, plan)[0], layer(x, plan)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 must divide dim=12"),
        ({"num_heads": 0}, "num_heads=0 must be at least 1"),
        ({"num_heads": 6, "num_value_heads": 4}, "num_value_heads=4 must divide num_heads=6"),
        ({"num_heads": 6, "num_value_heads": 0}, "num_value_heads=0 must divide num_heads=6"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"similarity_init": 0.0}, "similarity_init=0.0 must be positive"),
    ],
)
def test_senseless_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(12, **options)


def test_a_similarity_that_a_norm_would_undo_is_refused() -> None:
    with pytest.raises(ValueError, match="undone by qkv_norm=RMSNorm"):
        make(12, qkv_norm="RMSNorm", num_heads=6, similarity_init=2.0)


def test_positions_of_one_side_only_are_refused() -> None:
    layer, x, plan = (
        Attention(8, AttentionOptions(num_heads=2)),
        torch.randn(2, 7, 8),
        make_plan(Full(), VALID),
    )
    rotation = (torch.ones(2, 1, 7, 2), torch.zeros(2, 1, 7, 2))
    with pytest.raises(ValueError, match="context_position and context_rotary need a context"):
        layer(x, plan, context_position=x)
    with pytest.raises(ValueError, match="turn queries and keys together"):
        layer(x, plan, context=x, rotary=rotation)
