"""LASER attention against its definition in float64, and where exponentials run out of range."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.laser import RANGE, exponentiate, logarithm
from hepattn.ops.attention import (
    Full,
    Window,
    attention,
    attention_weights,
    make_packed_plan,
    make_plan,
)

LENGTHS = (9, 0, 12, 1)
VALID = torch.arange(12) < torch.tensor(LENGTHS)[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, plan: object) -> Tensor:
    values, peak = exponentiate(v, plan)
    return logarithm(attention(q, k, values, plan=plan), peak)


@pytest.mark.parametrize("pattern", [Full(), Window(4, wrap=True)])
@pytest.mark.parametrize("num_value_heads", [4, 2])
def test_output_is_the_logarithm_of_the_mean_exponential(
    pattern: object, num_value_heads: int
) -> None:
    q = torch.randn(4, 4, 12, 3)
    k, v = torch.randn(2, 4, num_value_heads, 12, 3)
    plan = make_plan(pattern, VALID)
    weights = attention_weights(q.double(), k.double(), plan=plan)  # (B, H, M, N)
    values = v.double().repeat_interleave(4 // num_value_heads, 1)
    expected = (weights @ values.exp()).log().masked_fill(~VALID[:, None, :, None], 0.0)
    assert_close(attend(q, k, v, plan), expected.float(), atol=1e-5, rtol=1e-5)


def test_gradients_equal_those_of_the_definition() -> None:
    q, k, v = (torch.randn(4, 2, 12, 3, requires_grad=True) for _ in range(3))
    weight = torch.randn(4, 2, 12, 3)
    plan = make_plan(Window(4), VALID)
    (attend(q, k, v, plan) * weight).sum().backward()
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    weights = attention_weights(*exact[:2], plan=plan)
    log = (weights @ exact[2].exp()).clamp(min=1e-300).log() * VALID[:, None, :, None]
    (log * weight).sum().backward()
    for x, y in zip((q, k, v), exact, strict=True):
        assert_close(x.grad, y.grad.float(), atol=1e-5, rtol=1e-4)


def test_padding_does_not_count_for_the_peak() -> None:
    v = torch.randn(1, 2, 5, 3)
    v[:, :, 3:] = 1e6
    _, peak = exponentiate(v, make_plan(Full(), torch.tensor([[True] * 3 + [False] * 2])))
    assert_close(peak, v[:, :, :3].amax(2, keepdim=True))


def test_a_window_far_below_the_events_peak_stays_finite() -> None:
    q, k = torch.randn(2, 1, 1, 8, 2)
    v = torch.randn(1, 1, 8, 2)
    v[..., 7, :] = 500.0  # seen from 6 and 7 only
    v.requires_grad_()
    out = attend(q, k, v, make_plan(Window(2), torch.ones(1, 8).bool()))
    out.sum().backward()
    assert_close(out[..., :6, :], torch.full((1, 1, 6, 2), 500.0 - RANGE))
    assert v.grad.isfinite().all()


def test_queries_that_see_nothing_give_zero_and_finite_gradients() -> None:
    q, k, v = (torch.randn(2, 2, 3, 4, requires_grad=True) for _ in range(3))
    plan = make_plan(Full(), torch.tensor([[True] * 3, [False] * 3]), torch.ones(2, 3).bool())
    out = attend(q, k, v, plan)
    out.square().sum().backward()
    assert (out[1] == 0).all()
    assert all(x.grad.isfinite().all() and (x.grad[1] == 0).all() for x in (q, k, v))


def test_packed_events_equal_separate_ones() -> None:
    layer = Attention(8, AttentionOptions(num_heads=2, laser=True))
    events = [torch.randn(1, 5, 8), 1000.0 * torch.randn(1, 3, 8)]  # peaks of their own
    together, _ = layer(torch.cat(events, 1), make_packed_plan(Window(2, wrap=True), (5, 3)))
    alone = [
        layer(event, make_plan(Window(2, wrap=True), torch.ones(event.shape[:2]).bool()))[0]
        for event in events
    ]
    assert_close(together, torch.cat(alone, 1), atol=1e-6, rtol=1e-5)


def test_events_without_any_token_are_served() -> None:
    layer = Attention(8, AttentionOptions(num_heads=2, laser=True))
    plan = make_plan(Full(), torch.ones(2, 0).bool())
    assert layer(torch.randn(2, 0, 8), plan)[0].shape == (2, 0, 8)


def test_bfloat16_autocast_costs_no_more_than_its_own_rounding() -> None:
    layer = Attention(32, AttentionOptions(num_heads=4, laser=True))
    x, plan = torch.randn(4, 12, 32), make_plan(Full(), VALID)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = layer(x, plan)
    assert_close(out.float(), layer(x, plan)[0], atol=3e-2, rtol=3e-2)


def test_float16_is_refused() -> None:
    layer = Attention(8, AttentionOptions(num_heads=2, laser=True))
    x, plan = torch.randn(4, 12, 8), make_plan(Full(), VALID)
    with torch.autocast("cpu", torch.float16), pytest.raises(TypeError, match="bf16-mixed"):
        layer(x, plan)
    with pytest.raises(TypeError, match="bf16-mixed"):
        layer.half()(x.half(), plan)
