"""The calls of flash-attn give the answer of the definition, forward and backward.

The package needs a GPU. A stand-in that follows its documentation takes its place elsewhere.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from hepattn.ops.attention import Full, Window, attention
from hepattn.ops.attention.backend import is_installed
from hepattn.ops.attention.flash import flash
from reference.attention import Case, assert_same, make_case
from reference.attention_cases import cases, dense_reference, plan_on

draws = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
calls: list[dict[str, object]] = []


def documented_varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """Attend in each sequence: query i of m sees key j of n where i + n - m is near j.

    Near means from ``window_size[0]`` before to ``window_size[1]`` after it; -1 has no bound.
    """
    assert not causal
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert all(x.is_contiguous() for x in (q, k, v))
    calls.append({"window": window_size, "dropout": dropout_p, "events": len(cu_seqlens_q) - 1})
    group = q.shape[1] // k.shape[1]
    outputs = []
    for event in range(len(cu_seqlens_q) - 1):
        queries = slice(*cu_seqlens_q[event : event + 2].tolist())
        keys = slice(*cu_seqlens_k[event : event + 2].tolist())
        m, n = queries.stop - queries.start, keys.stop - keys.start
        assert 0 < m <= max_seqlen_q
        assert 0 < n <= max_seqlen_k
        offset = torch.arange(n) - (torch.arange(m)[:, None] + n - m)  # (m, n)
        left, right = (float("inf") if size < 0 else size for size in window_size)
        seen = (offset >= -left) & (offset <= right)
        assert seen.any(1).all()
        key, value = (x[keys].double().repeat_interleave(group, 1) for x in (k, v))
        score = torch.einsum("mhe,nhe->hmn", q[queries].double(), key) * softmax_scale
        weights = score.masked_fill(~seen, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hmn,nhe->mhe", weights, value))
    return torch.cat(outputs).to(q.dtype)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """Let the stand-in be found in place of the package; the calls that it gets."""
    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = documented_varlen_attention
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    calls.clear()
    return calls


def run(case: Case, dropout: float = 0.0) -> dict[str, Tensor]:
    """The output and every gradient, by name."""
    scale = case.q.shape[-1] ** -0.5 if case.scale is None else case.scale
    inputs = case.inputs()
    out = flash(**inputs, plan=case.plan(), dropout=dropout, scale=scale)
    out.backward(case.grad_out)
    gradients = {
        name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in inputs.items()
    }
    return {"out": out.detach(), **gradients}


def in_float64(case: Case) -> Case:
    return replace(case, **{name: getattr(case, name).double() for name in ("q", "k", "v")})


@pytest.mark.usefixtures("stand_in")
@draws
@given(case=cases("flash"))
def test_matches_the_definition_forward_and_backward(case: Case) -> None:
    case = in_float64(case)
    assert_same(run(case), case.expected(), atol=1e-12)


@pytest.mark.usefixtures("stand_in")
@draws
@given(case=cases("flash"))
def test_padding_changes_nothing_and_its_results_are_zero(case: Case) -> None:
    case = in_float64(case)
    no_key, no_query = (~valid[:, None, :, None] for valid in (case.key_valid, case.query_valid))
    padding = {"out": no_query, "q": no_query, "k": no_key, "v": no_key}
    filled = {name: getattr(case, name).masked_fill(padding[name], 1e9) for name in "qkv"}
    found, plain = run(replace(case, **filled)), run(case)
    for name, x in found.items():
        assert torch.equal(x, plain[name]), name
        assert not x.masked_select(padding[name]).any(), name


def test_events_that_a_wrapped_window_covers_are_called_apart(
    stand_in: list[dict[str, object]],
) -> None:
    case = make_case(Window(4, wrap=True), [5, 6, 0, 9, 1])
    assert_same(run(case), case.expected(), atol=1e-12)
    assert [(call["window"], call["events"]) for call in stand_in] == [((-1, -1), 2), ((4, 0), 2)]


def test_dropout_reaches_the_package(stand_in: list[dict[str, object]]) -> None:
    run(make_case(Full(), [5, 3]), dropout=0.25)
    assert stand_in[0]["dropout"] == 0.25


@pytest.mark.usefixtures("stand_in")
def test_autocast_sets_the_dtype() -> None:
    case = make_case(Window(2), [5, 3], dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = flash(case.q, case.k, case.v, plan=case.plan(), dropout=0.0, scale=0.5)
    assert out.dtype == torch.bfloat16


def test_layers_share_the_lists_of_tokens(
    stand_in: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(Window(4, wrap=True), [5, 9])
    plan = case.plan()
    first = flash(case.q, case.k, case.v, plan=plan, dropout=0.0, scale=0.5)
    monkeypatch.setattr("hepattn.ops.attention.flash._make_groups", None)
    assert torch.equal(flash(case.q, case.k, case.v, plan=plan, dropout=0.0, scale=0.5), first)


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and is_installed("flash")), reason="needs a GPU and flash-attn"
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"pattern": Full()},
        {"pattern": Full(), "query_lengths": [30, 150, 0, 7]},
        {"pattern": Window(64)},
        {"pattern": Window(64, wrap=True), "num_key_heads": 1},
        {"pattern": Window(64, wrap=True), "packed": True},
    ],
    ids=lambda options: "-".join(str(x) for x in options.values()),
)
def test_the_package_matches_the_definition_on_a_gpu(
    options: dict[str, object], dtype: torch.dtype
) -> None:
    pattern = options["pattern"]
    rest = {name: x for name, x in options.items() if name != "pattern"}
    case = make_case(pattern, [300, 3, 140, 65], dim=16, dtype=dtype, extra=5, **rest)
    inputs = {name: x.detach().cuda().requires_grad_() for name, x in case.inputs().items()}
    out = attention(**inputs, plan=plan_on(case, "cuda"), backend="flash")
    out.backward(case.grad_out.cuda())
    found = {"out": out.detach().cpu(), **{name: x.grad.cpu() for name, x in inputs.items()}}
    assert_same(found, dense_reference(case), atol=2e-2)
