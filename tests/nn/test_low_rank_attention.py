"""Low-rank attention against loops over events and heads."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions, set_backend
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.low_rank_attention import LowRankAttention, TokenMixing
from hepattn.nn.packing import make_packing
from hepattn.ops.attention import Full, make_plan

LENGTHS = (5, 0, 3)
VALID = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(1)  # (3, 6)


def make_layer(**options: object) -> LowRankAttention:
    return LowRankAttention(8, TokenMixing(2, 7), AttentionOptions(num_heads=2, **options))


def attend(layer: LowRankAttention, x: Tensor, valid: Tensor, bias: Tensor | None) -> Tensor:
    packing = make_packing(valid)
    update, _ = layer(packing.pack(x), make_plan(Full(), valid), bias, packing=packing)
    return packing.unpack(update)


def loop(layer: LowRankAttention, x: Tensor, n: int, bias: Tensor | None) -> Tensor:
    """Attend within one event of n tokens, x (n, 8), bias (H, n, n), in float64."""
    x = x.double()
    query, key, value = (
        (x @ weight.double().T + b.double()).unflatten(1, (2, 4))
        for weight, b in (
            (layer.query.weight, layer.query.bias),
            *zip(layer.key_value.weight.chunk(2), layer.key_value.bias.chunk(2), strict=True),
        )
    )
    mix_key, mix_value = (w.double()[:, :n] for w in (layer.mixing.key, layer.mixing.value))
    heads = []
    for head in range(2):
        k, v = mix_key @ key[:, head], mix_value @ value[:, head]  # (R, E)
        score = query[:, head] @ k.T / math.sqrt(4)
        if bias is not None:
            score = score + bias[head].double() @ mix_key.T
        heads.append(score.softmax(-1) @ v)
    return torch.cat(heads, -1) @ layer.out.weight.double().T + layer.out.bias.double()


@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_a_loop_over_events_and_heads(with_bias: bool) -> None:
    layer, x = make_layer(), torch.randn(3, 6, 8)
    bias = torch.randn(3, 2, 6, 6) if with_bias else None
    if bias is not None:
        bias = bias.masked_fill(~VALID[:, None, None, :], -math.inf)
    out = attend(layer, x, VALID, bias)
    for event, n in enumerate(LENGTHS):
        some = None if bias is None else bias[event, :, :n, :n]
        expected = loop(layer, x[event, :n], n, some).float()
        assert_close(out[event, :n], expected, atol=1e-5, rtol=1e-4)
        assert (out[event, n:] == 0).all()


@pytest.mark.parametrize("with_bias", [False, True])
def test_weights_times_the_mixed_values_are_what_is_projected(with_bias: bool) -> None:
    layer, x = make_layer(), torch.randn(3, 6, 8)
    nn.init.eye_(layer.out.weight)
    bias = torch.randn(3, 2, 6, 6) if with_bias else None
    packing = make_packing(VALID)
    plan = make_plan(Full(), VALID)
    weights = layer.weights(packing.pack(x), plan, bias, packing=packing)
    assert weights.shape == (3, 2, 6, 2)
    out = attend(layer, x, VALID, bias) - layer.out.bias
    for event, n in enumerate(LENGTHS):
        assert (weights[event, :, n:] == 0).all()
        values = layer.key_value(x[event, :n])[:, 8:].unflatten(1, (2, 4)).transpose(0, 1)
        mixed = layer.mixing.value[:, :n] @ values  # (H, R, E)
        expected = (weights[event, :, :n] @ mixed).transpose(0, 1).flatten(1)
        assert_close(out[event, :n], expected, atol=1e-5, rtol=1e-4)


def test_padding_never_matters() -> None:
    layer, x, bias = make_layer(), torch.randn(3, 6, 8), torch.randn(3, 2, 6, 6)
    longer = torch.full((3, 9, 8), math.nan)
    longer[:, :6] = x
    wide = torch.full((3, 2, 9, 9), math.nan)
    wide[:, :, :6, :6] = bias
    valid = torch.cat([VALID, torch.zeros(3, 3, dtype=torch.bool)], 1)
    assert_close(attend(layer, longer, valid, wide)[:, :6], attend(layer, x, VALID, bias))


def test_gradients_reach_the_mixtures_and_the_bias() -> None:
    layer, x = make_layer(), torch.randn(3, 6, 8)
    bias = torch.randn(3, 2, 6, 6, requires_grad=True)
    attend(layer, x, VALID, bias).square().sum().backward()
    for gradient in (layer.mixing.key.grad, layer.mixing.value.grad):
        assert (gradient[:, :5] != 0).all()
        assert (gradient[:, 5:] == 0).all()
    assert (bias.grad[0, :, :5, :5] != 0).all()
    assert (bias.grad[1] == 0).all()
    assert bias.grad.isfinite().all()


def test_more_tokens_than_the_mixtures_know_are_refused() -> None:
    valid = torch.ones(1, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="an event has 8 tokens, more than max_tokens=7"):
        attend(make_layer(), torch.randn(1, 8, 8), valid, None)


@pytest.mark.parametrize("options", [{"laser": True}, {"num_value_heads": 1}])
def test_options_without_effect_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is not for low-rank attention"):
        make_layer(**options)


def test_rank_must_fit_the_tokens() -> None:
    with pytest.raises(ValueError, match="rank=8 must be 1 to max_tokens=7"):
        TokenMixing(8, 7)


def test_the_backend_of_a_network_reaches_low_rank_attention() -> None:
    net = nn.Sequential(make_layer())
    set_backend(net, "sdpa")
    assert net[0].options.backend == "sdpa"


def test_recorded_are_the_weights_of_the_mixtures() -> None:
    layer, x = make_layer(), torch.randn(3, 6, 8)
    with record_attention(layer) as weights, record_attention(layer, "", "visible") as visible:
        attend(layer, x, VALID, None)
    assert weights[""].shape == (3, 2, 6, 2)
    assert_close(weights[""].sum(-1), VALID.unsqueeze(1).expand(-1, 2, -1).float())
    assert visible[""].shape == (3, 1, 6, 2)
    assert visible[""].all()
