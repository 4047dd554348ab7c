"""Low-rank attention against loops over events and heads."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
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
