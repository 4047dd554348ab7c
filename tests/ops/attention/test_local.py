"""The parts of the local backend, and how it lives with the rest of torch."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import hepattn.ops.attention.band as band
from hepattn.ops.attention import Full, Plan, Registers, Window, attention
from hepattn.ops.attention.local import _local_backward, _local_forward
from hepattn.ops.attention.local_sight import Sight
from hepattn.ops.attention.tile import Tile
from hepattn.ops.attention.tiling import tiles
from reference.attention import Case, assert_same, make_case, run_case

BACKENDS = ("sdpa", "local")
PATTERN = Window(4, wrap=True)
REGISTERS = Registers(1)

any_backend = pytest.mark.parametrize("backend", BACKENDS)


@st.composite
def events(draw: st.DrawFn, *, is_cross: bool) -> Case:
    """One event, its queries sorted by their centres and each of them on the event's ring."""
    wrap = draw(st.booleans())
    pattern = draw(st.sampled_from([Full(wrap), *(Window(2 * half, wrap) for half in range(1, 6))]))
    registers = Registers(draw(st.integers(0, 2)))
    num_keys, num_queries = draw(st.integers(0, 20)), draw(st.integers(0, 12))
    case = make_case(
        pattern,
        [registers.num + num_keys],
        query_lengths=[num_queries] if is_cross else None,
        registers=registers,
    )
    if is_cross:
        places = st.integers(0, max(num_keys - 1, 0)) if wrap else st.integers(-9, 29)
        centres = draw(st.lists(places, min_size=num_queries, max_size=num_queries))
        case.centres = torch.tensor([sorted(centres)], dtype=torch.int64)
    return case


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    case=st.booleans().flatmap(lambda is_cross: events(is_cross=is_cross)),
    block=st.integers(1, 6),
    max_pairs=st.sampled_from([1, 50, 1000]),
    has_bias=st.booleans(),
)
def test_tiles_hold_every_visible_pair_exactly_once_and_know_its_offset(
    case: Case, block: int, max_pairs: int, has_bias: bool
) -> None:
    expected = torch.full((case.q.shape[2], case.k.shape[2]), torch.nan)
    for _, i, keys, offsets in case.sights():
        expected[i, keys] = torch.tensor([float(d or 0) for d in offsets])
    if not has_bias:
        expected *= 0
    half = case.pattern.half if isinstance(case.pattern, Window) else None
    # With this table the bias of an offset is the offset.
    table = torch.arange(-50.0, 51.0)[None] if has_bias else None
    sight = Sight(half, case.pattern.wrap, block, table, torch.float32, torch.device("cpu"))
    found = torch.full_like(expected, torch.nan)
    centres = None if case.centres is None else case.centres[0]
    for tile in tiles(
        case.q.shape[2],
        case.k.shape[2],
        sight,
        centres=centres,
        num_registers=case.registers.num,
        max_pairs=max_pairs,
    ):
        for i, j, score in _pairs(tile, sight, *expected.shape):
            assert found[i, j].isnan(), (i, j)
            found[i, j] = score
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)


def _pairs(
    tile: Tile, sight: Sight, num_queries: int, num_keys: int
) -> Iterator[tuple[int, int, float]]:
    """Query and key of each visible pair of a tile, and what the mask adds to its score."""
    queries = tile.of_queries(torch.arange(num_queries)[None])[:, 0]  # (G, block)
    keys = tile.of_keys(torch.arange(num_keys)[None, :, None])[:, 0, :, 0]  # (G, width)
    mask = sight.mask(tile)
    mask = torch.zeros(tile.block, tile.width) if mask is None else mask
    mask = mask.expand(1, 1, tile.block, tile.width)[0, 0]
    for g in range(tile.num_blocks):
        for row, column in mask.isfinite().nonzero().tolist():
            yield int(queries[g, row]), int(keys[g, column]), mask[row, column].item()


@pytest.mark.parametrize("wrap", [False, True])
def test_centres_of_queries_may_come_in_any_order(wrap: bool) -> None:
    case = make_case(Window(4, wrap), [12], query_lengths=[5], offset_bias_shape=(2, 5))
    case.centres = torch.tensor([[-40, 11, 0, 26, 5]])
    assert_same(run_case(case, "local"), case.expected(), atol=1e-12)


def test_queries_that_see_nothing_give_exact_zeros() -> None:
    case = make_case(Window(4), [12, 0], query_lengths=[3, 3], offset_bias_shape=(2, 5))
    case.centres = torch.tensor([[-3, 5, 14], [0, 0, 0]])
    found = run_case(case, "local")
    blind = torch.tensor([[True, False, True], [True, True, True]])[:, None, :, None]
    for name in ("out", "q"):
        assert not found[name].masked_select(blind).any()
        assert found[name].masked_select(~blind).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_both_block_kernels_agree(dtype: torch.dtype) -> None:
    if not band._flash_is_sound(dtype):
        pytest.skip("this torch lacks the private flash kernel, or it changed")
    q, k, v, grad_out = (torch.randn(3, 2, n, 8).to(dtype) for n in (5, 9, 9, 5))
    mask = torch.randn(1, 2, 5, 9).to(dtype)
    mask = mask.masked_fill(torch.ones(5, 9).triu(6).bool(), float("-inf"))
    flash_out, flash_logsumexp = band.block_forward(q, k, v, mask, 0.4)
    out, logsumexp = band._plain_forward(q, k, v, mask, 0.4)
    arguments = (grad_out, q, k, v, out, logsumexp, mask, 0.4)
    flash = (flash_out, flash_logsumexp, *band.block_backward(*arguments)[:3])
    plain = (out, logsumexp, *band._plain_backward(*arguments)[:3])
    atol = 20 * torch.finfo(dtype).eps
    for found, expected in zip(flash, plain, strict=True):
        torch.testing.assert_close(found.double(), expected.double(), rtol=0.0, atol=atol)


def test_a_torch_without_the_private_kernel_takes_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(band, "_FLASH", None)
    monkeypatch.setattr(band, "_flash_is_sound", band._flash_is_sound.__wrapped__)
    assert not band._flash_serves(torch.zeros(1))


def test_a_private_kernel_with_another_meaning_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_base_two(*args: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        out, logsumexp = flash(*args, **options)
        return out, logsumexp * 1.4427

    flash = band._FLASH
    monkeypatch.setattr(band, "_FLASH", in_base_two)
    monkeypatch.setattr(band, "_flash_is_sound", band._flash_is_sound.__wrapped__)
    assert not band._flash_serves(torch.zeros(1))


def some_cases(lengths: tuple[int, int] = (12, 7)) -> dict[str, Case]:
    """Requests that take different ways through the operator."""
    return {
        "window": make_case(PATTERN, lengths, registers=REGISTERS),
        "bias": make_case(
            PATTERN, lengths, registers=Registers(2, stride=3), offset_bias_shape=(2, 5)
        ),
        "packed": make_case(Window(4), lengths, packed=True, extra=1, offset_bias_shape=(1, 3)),
        "cross": make_case(
            PATTERN, lengths, query_lengths=[lengths[0] - 4, 3], offset_bias_shape=(1, 3)
        ),
        "full cross": make_case(Full(), lengths, query_lengths=[lengths[0] - 4, 3]),
    }


any_request = pytest.mark.parametrize("request_name", some_cases())


@any_request
def test_the_operators_keep_the_rules_of_custom_operators(request_name: str) -> None:
    case = some_cases()[request_name]
    plan, inputs = case.plan(), case.inputs()
    centres = plan.queries.place.expand(plan.query_valid.shape) if plan.is_cross else None
    half = case.pattern.half if isinstance(case.pattern, Window) else None
    q, k, v, offset_bias = (inputs.get(name) for name in ("q", "k", "v", "offset_bias"))
    options = (half, case.pattern.wrap, case.registers.num, 0.5)
    arguments = (q, k, v, offset_bias, plan.events, centres, *options)
    torch.library.opcheck(_local_forward, arguments)
    with torch.no_grad():
        results = _local_forward(*arguments)
        has_bias = offset_bias is not None
        saved = (case.grad_out, q, k, v, *results, offset_bias, plan.events, centres, has_bias)
        torch.library.opcheck(_local_backward, (*saved, *options))


def sandwiched(
    q: torch.Tensor, *, plan: Plan, backend: str, **others: torch.Tensor
) -> torch.Tensor:
    return attention(q.sin(), plan=plan, backend=backend, **others).cos()


@pytest.mark.parametrize(
    ("backend", "request_name"),
    [*(("local", name) for name in some_cases()), ("sdpa", "bias"), ("auto", "window")],
)
def test_a_compiled_function_gives_the_same_answer_for_every_batch(
    backend: str, request_name: str
) -> None:
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(sandwiched, fullgraph=True, backend=graphs)
    for lengths in ((12, 7), (12, 8), (9, 4), (11, 3)):
        case = some_cases(lengths)[request_name]
        found, expected = [], []
        for results, function in ((found, compiled), (expected, sandwiched)):
            inputs = case.inputs()
            out = function(**inputs, plan=case.plan(), backend=backend)
            out.backward(case.grad_out)
            results += [out.detach(), *(x.grad for x in inputs.values())]
        torch.testing.assert_close(found, expected)
    assert graphs.frame_count <= 2  # fixed sizes, then any


@any_backend
@any_request
def test_checkpointing_gives_the_same_gradients(backend: str, request_name: str) -> None:
    case = some_cases()[request_name]
    plain, recomputed = case.inputs(), case.inputs()
    options = {"plan": case.plan(), "backend": backend}
    sandwiched(**plain, **options).backward(case.grad_out)
    checkpoint(sandwiched, **recomputed, **options, use_reentrant=False).backward(case.grad_out)
    for name, x in plain.items():
        assert torch.equal(x.grad, recomputed[name].grad)


@any_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_the_regions_dtype(backend: str, dtype: torch.dtype) -> None:
    case = make_case(
        PATTERN, [12, 7], registers=REGISTERS, offset_bias_shape=(2, 3), dtype=torch.float32
    )
    inputs = case.inputs()
    with torch.autocast("cpu", dtype=dtype):
        mixed = {**inputs, "k": inputs["k"].to(dtype)}
        out = attention(**mixed, plan=case.plan(), backend=backend)
    assert out.dtype == dtype
    out.backward(case.grad_out.to(dtype))
    for name, x in case.expected().items():
        found = out if name == "out" else inputs[name].grad
        torch.testing.assert_close(found.double(), x, rtol=0.0, atol=0.1)


def test_a_backward_inside_autocast_is_as_exact_as_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(band, "_flash_serves", lambda q: False)
    case = make_case(PATTERN, [12, 7], offset_bias_shape=(2, 3), dtype=torch.float32)
    inputs = case.inputs()
    out = attention(**inputs, plan=case.plan(), backend="local")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out.backward(case.grad_out)
    found = {"out": out, **{name: x.grad for name, x in inputs.items()}}
    assert_same(found, case.expected(), atol=3e-6)


def test_a_bias_without_gradients_stays_on_the_fused_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not band._flash_is_sound(torch.float64):
        pytest.skip("this torch lacks the private flash kernel, or it changed")
    case = make_case(PATTERN, [12], offset_bias_shape=(2, 3))
    expected = case.expected()
    monkeypatch.setattr(band, "_plain_backward", None)
    inputs = case.inputs()
    inputs["offset_bias"].requires_grad_(False)
    attention(**inputs, plan=case.plan(), backend="local").backward(case.grad_out)
    for name in "qkv":
        torch.testing.assert_close(inputs[name].grad, expected[name])


# 60,000 tokens: a boolean mask of every pair would take 3.6 GB.
LONG_EVENT = """
from pathlib import Path
import torch
from hepattn.ops.attention import Window, attention, make_plan

def peak_bytes():
    # Not getrusage's, which starts at the parent's memory.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

def step(num_tokens):
    q, k, v = (torch.randn(1, 1, num_tokens, 16, requires_grad=True) for _ in range(3))
    inputs = {"q": q, "k": k, "v": v}
    if "bias" in REQUEST:
        inputs["offset_bias"] = torch.randn(1, 65, requires_grad=True)
    valid = torch.ones(1, num_tokens, dtype=torch.bool)
    plan = make_plan(Window(256, wrap=True), valid, valid if "cross" in REQUEST else None)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = peak_bytes()
    attention(**inputs, plan=plan, backend="local").sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs.values())
    return peak_bytes() - before

step(1000)
print(step(60_000))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("request_name", ["window", "window, bias", "cross, bias"])
def test_memory_of_a_long_event_grows_linearly(request_name: str) -> None:
    script = f"REQUEST = {request_name!r}{LONG_EVENT}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # The output and three gradients alone are 15 MB; with the blocks at work it is 20 to 40 MB.
    assert 15e6 < int(result.stdout) < 100e6
