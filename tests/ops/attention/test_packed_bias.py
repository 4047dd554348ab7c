"""Attention with a bias of the pairs within packed events, against a loop over events."""

# H heads, E head features

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.ops.attention import (
    Full,
    Plan,
    Window,
    attention,
    attention_weights,
    make_packed_plan,
)

H, E = 4, 3
LENGTHS = [2, 2, 0, 1, 5, 5]  # keys of events, of which neighbours are alike


def draw(num_queries: int, num_keys: int, num_pairs: int, key_heads: int = H) -> list[Tensor]:
    shapes = ((1, H, num_queries, E), *[(1, key_heads, num_keys, E)] * 2, (H, num_pairs))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def loop(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, num_queries: list[int], num_keys: list[int]
) -> Tensor:
    out = torch.zeros_like(q)
    query = key = pair = 0
    for m, n in zip(num_queries, num_keys, strict=True):
        rows, columns = slice(query, query + m), slice(key, key + n)
        own = bias[:, pair : pair + m * n].unflatten(1, (m, n))
        score = q[0, :, rows] @ k[0, :, columns].mT / E**0.5 + own
        out[0, :, rows] = score.softmax(-1) @ v[0, :, columns]
        query, key, pair = query + m, key + n, pair + m * n
    return out


@pytest.mark.parametrize("num_queries", [None, [3, 3, 2, 0, 1, 1]], ids=["self", "cross"])
@pytest.mark.parametrize("key_heads", [H, 2])
@pytest.mark.parametrize("padding", [0, 2])
def test_outputs_and_gradients_are_those_of_a_loop(
    num_queries: list[int] | None, key_heads: int, padding: int
) -> None:
    own = num_queries or LENGTHS
    tokens = [sum(own) + padding, sum(LENGTHS) + padding]
    num_pairs = sum(m * n for m, n in zip(own, LENGTHS, strict=True))
    leaves = draw(*tokens, num_pairs, key_heads)
    options = {"num_queries": tokens[0]} if num_queries else {}
    plan = make_packed_plan(Full(), LENGTHS, num_queries, num_tokens=tokens[1], **options)
    q, k, v, bias = leaves
    found = attention(q, k, v, plan=plan, bias=bias)
    k, v = (x.repeat_interleave(H // key_heads, 1) for x in (k, v))
    expected = loop(q, k, v, bias, own, LENGTHS)
    assert_close(found, expected)
    weight = torch.randn_like(found)
    results = [torch.autograd.grad((x * weight).sum(), leaves) for x in (found, expected)]
    assert_close(*results)
    with torch.no_grad():
        q, k, v, bias = leaves
        assert_close(attention(q, k, v, plan=plan, bias=bias), expected)


@pytest.mark.parametrize("key_heads", [H, 2])
def test_autocast_computes_in_its_dtype(key_heads: int) -> None:
    q, k, v, bias = (x.detach().float() for x in draw(15, 15, 59, key_heads))
    plan = make_packed_plan(Full(), LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(q, k, v, plan=plan, bias=bias)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), attention(q, k, v, plan=plan, bias=bias), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("plan", "bias", "message"),
    [
        (make_packed_plan(Full(), LENGTHS), torch.zeros(H, 58), r"must be \(4, 59\)"),
        (make_packed_plan(Full(), LENGTHS), torch.zeros(1, 59), r"must be \(4, 59\)"),
        (make_packed_plan(Window(2), LENGTHS), torch.zeros(H, 59), r"for Full\(\) with a packed"),
    ],
)
def test_a_bias_that_does_not_fit_is_refused(plan: Plan, bias: Tensor, message: str) -> None:
    q, k, v, _ = (x.detach().float() for x in draw(15, 15, 59))
    with pytest.raises(ValueError, match=message):
        attention(q, k, v, plan=plan, bias=bias)


@pytest.mark.parametrize("backend", ["local", "flex", "flash"])
def test_other_backends_refuse_it(backend: str) -> None:
    q, k, v, bias = (x.detach().float() for x in draw(15, 15, 59))
    with pytest.raises(ValueError, match=r"pairs within packed events.* can: sdpa"):
        attention(q, k, v, plan=make_packed_plan(Full(), LENGTHS), bias=bias, backend=backend)


def test_weights_refuse_it() -> None:
    q, k, _, bias = draw(15, 15, 59)
    with pytest.raises(ValueError, match=r"shape \(4, 59\) is of pairs within packed events"):
        attention_weights(q, k, plan=make_packed_plan(Full(), LENGTHS), bias=bias)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it
def test_a_compiled_function_gives_the_same_answer() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, plan: Plan) -> Tensor:
        return 2 * attention(q, k, v, plan=plan, bias=bias)

    compiled = torch.compile(attend, backend="eager")
    for lengths in (LENGTHS, [3, 1, 2]):
        num, num_pairs = sum(lengths), sum(n * n for n in lengths)
        inputs, plan = draw(num, num, num_pairs), make_packed_plan(Full(), lengths)
        found, expected = compiled(*inputs, plan), attend(*inputs, plan)
        assert_close(found, expected)
        assert_close(*(torch.autograd.grad(x.square().sum(), inputs) for x in (found, expected)))


def test_it_is_no_part_of_a_whole_graph() -> None:
    plan = make_packed_plan(Full(), LENGTHS)
    whole = torch.compile(
        lambda q, k, v, bias: attention(q, k, v, plan=plan, bias=bias),
        backend="eager",
        fullgraph=True,
    )
    with pytest.raises(torch._dynamo.exc.Unsupported, match="no part of a graph"):
        whole(*(x.detach() for x in draw(15, 15, 59)))
