"""Every backend gives the answer of the definition, forward and backward."""

from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hepattn.ops.attention.band as band
import hepattn.ops.attention.local as local
from hepattn.ops.attention import Full, Pattern, Window, attention, attention_weights, make_plan
from reference.attention import (
    BACKENDS,
    Case,
    assert_same,
    loop_weights,
    make_case,
    run_case,
)

# Relative to the largest magnitude of each tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 5e-2}

any_backend = pytest.mark.parametrize("backend", BACKENDS)
draws = settings(derandomize=True, deadline=None, max_examples=30)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    if draw(st.integers(0, 4)) == 0:
        return Full()
    return Window(
        size=2 * draw(st.integers(1, 4)),
        wrap=draw(st.booleans()),
        num_registers=draw(st.integers(0, 2)),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Self-attention cases; lengths gather where a window just covers an event."""
    pattern = draw(patterns())
    first, lengths = 0, st.integers(0, 13)
    if isinstance(pattern, Window):
        first = pattern.num_registers
        edges = [0, 1, pattern.half + 1, pattern.half + 2, pattern.size + 1, pattern.size + 2]
        lengths = st.one_of(lengths, st.sampled_from(edges))
    num_key_heads = draw(st.sampled_from([1, 2]))
    return make_case(
        pattern,
        [first + n for n in draw(st.lists(lengths, min_size=1, max_size=3))],
        num_heads=num_key_heads * draw(st.sampled_from([1, 2])),
        num_key_heads=num_key_heads,
        dim=draw(st.sampled_from([1, 4, 5])),
        dtype=draw(st.sampled_from(list(TOLERANCE))),
        scale=draw(st.sampled_from([None, 0.3, -1.0])),
        extra=draw(st.sampled_from([1, 0, 3])),
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def inner_workings(draw: st.DrawFn) -> ExitStack:
    """Settings of `local` that must not matter: small blocks and tiles, and the block kernel."""
    stack = ExitStack()
    if draw(st.booleans()):
        blocks = {
            "FORWARD_BLOCK": draw(st.integers(1, 4)),
            "BACKWARD_BLOCKS": sorted(draw(st.tuples(*[st.integers(1, 4)] * 2))),
            "MAX_PAIRS": draw(st.sampled_from([1, 60, 300])),
        }
        stack.enter_context(patch.multiple(local, **blocks))
    if draw(st.booleans()):
        stack.enter_context(patch.object(band, "_flash_serves", lambda q: False))
    return stack


@any_backend
@settings(draws, max_examples=100)
@given(data=st.data(), case=cases())
def test_matches_the_definition_forward_and_backward(
    backend: str, data: st.DataObject, case: Case
) -> None:
    with data.draw(inner_workings()) if backend == "local" else ExitStack():
        found = run_case(case, backend)
    assert_same(found, case.expected(), atol=TOLERANCE[case.q.dtype])


@any_backend
@draws
@given(case=cases())
def test_padded_values_change_nothing_and_padded_results_are_zero(backend: str, case: Case) -> None:
    plain = run_case(case, backend)
    padding = ~case.key_valid[:, None, :, None]
    filled = replace(
        case, **{name: getattr(case, name).masked_fill(padding, 1e9) for name in ("q", "k", "v")}
    )
    found = run_case(filled, backend)
    for name, x in found.items():
        assert torch.equal(x, plain[name]), name
        assert not x.masked_select(padding).any(), name


@any_backend
@draws
@given(length=st.integers(1, 9), seed=st.integers(0, 99))
def test_full_attention_is_permutation_equivariant(backend: str, length: int, seed: int) -> None:
    case = make_case(Full(), [length], extra=2, seed=seed)
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    _assert_equivariant(case, torch.cat([order, torch.arange(length, length + 2)]), backend)


@any_backend
@draws
@given(
    length=st.integers(1, 12),
    shift=st.integers(1, 11),
    half=st.integers(1, 4),
    num_registers=st.integers(0, 2),
)
def test_wrapped_window_is_equivariant_to_cyclic_shifts(
    backend: str, length: int, shift: int, half: int, num_registers: int
) -> None:
    pattern = Window(2 * half, wrap=True, num_registers=num_registers)
    case = make_case(pattern, [num_registers + length], extra=1)
    order = torch.arange(num_registers + length + 1)
    order[num_registers:-1] = order[num_registers:-1].roll(shift)
    _assert_equivariant(case, order, backend)


def _assert_equivariant(case: Case, order: torch.Tensor, backend: str) -> None:
    moved = replace(
        case, **{name: getattr(case, name)[:, :, order] for name in ("q", "k", "v", "grad_out")}
    )
    plain = run_case(case, backend)
    assert_same(
        run_case(moved, backend), {name: x[:, :, order] for name, x in plain.items()}, atol=1e-12
    )


@any_backend
@draws
@given(case=cases())
def test_an_event_does_not_depend_on_its_batch(backend: str, case: Case) -> None:
    together = run_case(case, backend)
    tensors = ("q", "k", "v", "grad_out")
    for b, length in enumerate(case.lengths):
        alone = replace(
            case, lengths=(length,), **{name: getattr(case, name)[b : b + 1] for name in tensors}
        )
        expected = {name: x[b : b + 1] for name, x in together.items()}
        assert_same(run_case(alone, backend), expected, atol=TOLERANCE[case.q.dtype])


@draws
@given(case=cases())
def test_switching_the_backend_keeps_the_answer(case: Case) -> None:
    first, *others = (run_case(case, backend) for backend in (*BACKENDS, "auto"))
    for other in others:
        assert_same(other, first, atol=TOLERANCE[case.q.dtype])


@draws
@given(
    lengths=st.lists(st.integers(0, 6), min_size=2, max_size=2),
    query_lengths=st.lists(st.integers(0, 4), min_size=2, max_size=2),
    bias_shape=st.sampled_from([None, (1, 1), (2, 1), (1, 4), (2, 4)]),
    num_key_heads=st.sampled_from([1, 2, 4]),
)
@example(lengths=[0, 0], query_lengths=[2, 0], bias_shape=(2, 4), num_key_heads=2)
def test_cross_attention_matches_the_definition(
    lengths: list[int],
    query_lengths: list[int],
    bias_shape: tuple[int, int] | None,
    num_key_heads: int,
) -> None:
    case = make_case(
        Full(),
        lengths,
        query_lengths=query_lengths,
        bias_shape=bias_shape,
        num_heads=4,
        num_key_heads=num_key_heads,
        extra=1,
    )
    assert_same(run_case(case, "sdpa"), case.expected(), atol=1e-12)


@draws
@given(case=cases(), bias_shape=st.sampled_from([(1, 1), (1, None), (None, 1), (None, None)]))
def test_bias_and_its_gradient_match_the_definition(
    case: Case, bias_shape: tuple[int | None, int | None]
) -> None:
    shape = [size or full for size, full in zip(bias_shape, case.q.shape[:2], strict=True)]
    bias = torch.randn(*shape, case.q.shape[2], case.k.shape[2]).to(case.q.dtype)
    case = replace(case, bias=bias)
    assert_same(run_case(case, "sdpa"), case.expected(), atol=TOLERANCE[case.q.dtype])


@draws
@given(case=cases())
def test_weights_match_the_definition(case: Case) -> None:
    plan = make_plan(case.pattern, case.key_valid)
    bias = torch.randn(1, 1, case.q.shape[2], case.k.shape[2]).to(case.q.dtype)
    found = attention_weights(case.q, case.k, plan=plan, bias=bias, scale=case.scale)
    expected = loop_weights(
        case.q, case.k, pattern=case.pattern, lengths=case.lengths, bias=bias, scale=case.scale
    )
    torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=1e-5)


def test_dropout_drops_weights_and_keeps_their_mean() -> None:
    q, k = torch.zeros(2, 1, 1, 50, 1)
    plan = make_plan(Full(), torch.ones(1, 50, dtype=torch.bool))
    v = torch.ones(1, 1, 50, 1)
    out = attention(q, k, v, plan=plan, dropout=0.5)
    assert out.std() > 0.01
    assert abs(out.mean() - 1) < 0.1


@any_backend
def test_features_may_be_strided(backend: str) -> None:
    case = make_case(Window(2, wrap=True), [7, 4], dim=4)
    strided = replace(
        case,
        **{name: getattr(case, name).mT.contiguous().mT for name in ("q", "k", "v", "grad_out")},
    )
    assert_same(run_case(strided, backend), run_case(case, backend), atol=1e-12)


@any_backend
def test_gradients_are_the_numerical_ones(backend: str) -> None:
    case = make_case(Window(2, wrap=True, num_registers=1), [6, 4], dim=2)
    plan = make_plan(case.pattern, case.key_valid)
    torch.autograd.gradcheck(
        lambda q, k, v: attention(q, k, v, plan=plan, backend=backend),
        tuple(case.inputs().values()),
    )
