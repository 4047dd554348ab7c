"""Every backend gives the answer of the definition, forward and backward, or refuses."""

from contextlib import ExitStack
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hepattn.ops.attention.band as band
import hepattn.ops.attention.local as local
from hepattn.ops.attention import Full, Registers, Window, attention, make_plan
from reference.attention import Case, assert_same, make_case, run_case, run_weights
from reference.attention_cases import cases

# Those that run forward and backward on a CPU; `flex` and `flash` have files of their own.
BACKENDS = ("sdpa", "local")

# Relative to the largest magnitude of each tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 5e-2}

any_backend = pytest.mark.parametrize("backend", BACKENDS)
draws = settings(derandomize=True, deadline=None, max_examples=30)


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
@settings(draws, max_examples=80)
@given(data=st.data())
def test_matches_the_definition_forward_and_backward(backend: str, data: st.DataObject) -> None:
    case = data.draw(cases(backend))
    with data.draw(inner_workings()) if backend == "local" else ExitStack():
        found = run_case(case, backend)
    assert_same(found, case.expected(), atol=TOLERANCE[case.q.dtype])


@any_backend
@draws
@given(data=st.data())
def test_padded_values_change_nothing_and_padded_results_are_zero(
    backend: str, data: st.DataObject
) -> None:
    case = data.draw(cases(backend))
    plain = run_case(case, backend)
    no_key, no_query = (~valid[:, None, :, None] for valid in (case.key_valid, case.query_valid))
    padding = {"out": no_query, "q": no_query, "k": no_key, "v": no_key}
    filled = {name: getattr(case, name).masked_fill(padding[name], 1e9) for name in "qkv"}
    found = run_case(replace(case, **filled), backend)
    for name, x in found.items():
        assert torch.equal(x, plain[name]), name
        if name in padding:
            assert not x.masked_select(padding[name]).any(), name


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
    pattern, registers = Window(2 * half, wrap=True), Registers(num_registers)
    case = make_case(
        pattern,
        [num_registers + length],
        registers=registers,
        offset_bias_shape=(2, 5),
        extra=1,
    )
    order = torch.arange(num_registers + length + 1)
    order[num_registers:-1] = order[num_registers:-1].roll(shift)
    _assert_equivariant(case, order, backend)


def _assert_equivariant(case: Case, order: torch.Tensor, backend: str) -> None:
    moved = replace(
        case, **{name: getattr(case, name)[:, :, order] for name in ("q", "k", "v", "grad_out")}
    )
    expected = run_case(case, backend)
    for name in ("out", "q", "k", "v"):
        expected[name] = expected[name][:, :, order]
    assert_same(run_case(moved, backend), expected, atol=1e-12)


@any_backend
@draws
@given(data=st.data())
def test_packed_events_give_what_padded_ones_give(backend: str, data: st.DataObject) -> None:
    case = data.draw(cases(backend, is_cross=False))
    if case.packed or case.mask is not None or case.bias is not None:
        return
    padded = run_case(case, backend)
    tensors = {
        name: getattr(case, name).transpose(1, 2)[case.key_valid].transpose(0, 1)[None]
        for name in ("q", "k", "v", "grad_out")
    }
    packed = run_case(replace(case, packed=True, **tensors), backend)
    for name in ("out", "q", "k", "v"):
        padded[name] = padded[name].transpose(1, 2)[case.key_valid].transpose(0, 1)[None]
    assert_same(packed, padded, atol=TOLERANCE[case.q.dtype])


@any_backend
@draws
@given(data=st.data())
def test_an_event_does_not_depend_on_its_batch(backend: str, data: st.DataObject) -> None:
    case = data.draw(cases(backend, is_cross=False))
    if case.packed or case.offset_bias is not None or case.bias is not None:
        return
    together = run_case(case, backend)
    for b, length in enumerate(case.lengths):
        alone = replace(
            case,
            lengths=(length,),
            mask=None if case.mask is None else case.mask[b : b + 1],
            **{name: getattr(case, name)[b : b + 1] for name in ("q", "k", "v", "grad_out")},
        )
        expected = {name: x[b : b + 1] for name, x in together.items()}
        assert_same(run_case(alone, backend), expected, atol=TOLERANCE[case.q.dtype])


@draws
@given(case=cases(*BACKENDS))
def test_switching_the_backend_keeps_the_answer(case: Case) -> None:
    first, *others = (run_case(case, backend) for backend in (*BACKENDS, "auto"))
    for other in others:
        assert_same(other, first, atol=TOLERANCE[case.q.dtype])


@draws
@given(case=cases("sdpa"))
@example(case=make_case(Full(), [0, 0], query_lengths=[2, 0], bias_shape=(2, 2), extra=1))
def test_weights_match_the_definition(case: Case) -> None:
    expected = case.loop_weights().detach()
    tolerance = 5e-2 if case.q.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(run_weights(case).double(), expected, rtol=0.0, atol=tolerance)


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
    case = make_case(
        Window(2, wrap=True),
        [6, 4],
        registers=Registers(1, stride=2),
        offset_bias_shape=(2, 3),
        dim=2,
    )
    plan = case.plan()
    torch.autograd.gradcheck(
        lambda q, k, v, offset_bias: attention(
            q, k, v, offset_bias=offset_bias, plan=plan, backend=backend
        ),
        tuple(case.inputs().values()),
    )


@any_backend
def test_wide_heads_are_served(backend: str) -> None:
    case = make_case(Window(2, wrap=True), [9, 4], dim=264)
    assert_same(run_case(case, backend), case.expected(), atol=1e-11)
