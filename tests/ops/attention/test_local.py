"""The parts of the local backend, and how it lives with the rest of torch."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import hepattn.ops.attention.band as band
from hepattn.ops.attention import Plan, Window, attention, make_plan
from hepattn.ops.attention.local import _local_forward
from hepattn.ops.attention.tile import tiles
from reference.attention import BACKENDS, assert_same, make_case, visible

PATTERN = Window(4, wrap=True, num_registers=1)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    num_real=st.integers(0, 20),
    half=st.integers(1, 5),
    wrap=st.booleans(),
    num_registers=st.integers(0, 2),
    block=st.integers(1, 6),
    max_pairs=st.sampled_from([1, 50, 1000]),
)
def test_tiles_hold_every_visible_pair_exactly_once(
    num_real: int, half: int, wrap: bool, num_registers: int, block: int, max_pairs: int
) -> None:
    window, length = Window(2 * half, wrap, num_registers), num_registers + num_real
    mask = band.band_mask(block, half, torch.float32, torch.device("cpu"))
    count = torch.zeros(length, length)
    tokens = torch.arange(length)
    for tile in tiles(
        length,
        half=half,
        wrap=wrap,
        covers=window.covers(num_real),
        num_registers=num_registers,
        block=block,
        max_pairs=max_pairs,
    ):
        queries = tile.of_queries(tokens[None])[:, 0]  # (G, block)
        keys = tile.of_keys(tokens[None, :, None])[:, 0, :, 0]  # (G, width)
        tile_mask = tile.mask(mask)
        for g in range(tile.num_blocks):
            seen = torch.ones(tile.block, tile.width) if tile_mask is None else tile_mask.exp()
            pairs = (queries[g, :, None].expand_as(seen), keys[g, None, :].expand_as(seen))
            count.index_put_(pairs, seen, accumulate=True)
    for i in range(length):
        for j in range(length):
            assert count[i, j] == visible(window, i, j, length), (i, j)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_both_block_kernels_agree(dtype: torch.dtype) -> None:
    if not band._flash_is_sound(dtype):
        pytest.skip("this torch lacks the private flash kernel, or it changed")
    q, k, v, grad_out = (torch.randn(3, 2, n, 8).to(dtype) for n in (5, 9, 9, 5))
    mask = band.band_mask(6, 2, dtype, q.device)[:5, 1:]
    flash_out, flash_logsumexp = band.block_forward(q, k, v, mask, 0.4)
    out, logsumexp = band._plain_forward(q, k, v, mask, 0.4)
    arguments = (grad_out, q, k, v, out, logsumexp, mask, 0.4)
    flash = (flash_out, flash_logsumexp, *band.block_backward(*arguments))
    plain = (out, logsumexp, *band._plain_backward(*arguments))
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


def test_the_operator_keeps_the_rules_of_custom_operators() -> None:
    inputs = make_case(PATTERN, [12, 7]).inputs().values()
    options = (torch.tensor([12, 7]), PATTERN.half, PATTERN.wrap, PATTERN.num_registers, 0.5)
    torch.library.opcheck(_local_forward, (*inputs, *options))


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_a_compiled_function_gives_the_same_answer_for_every_batch(backend: str) -> None:
    def layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: Plan) -> torch.Tensor:
        return attention(q.sin(), k, v, plan=plan, backend=backend).cos()

    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=graphs)
    for lengths in ([12, 7], [12, 8], [9, 4], [11, 3]):
        case = make_case(PATTERN, lengths)
        found, expected = [], []
        for results, function in ((found, compiled), (expected, layer)):
            inputs = case.inputs()
            out = function(**inputs, plan=make_plan(PATTERN, case.key_valid))
            out.backward(case.grad_out)
            results += [out.detach(), *(x.grad for x in inputs.values())]
        torch.testing.assert_close(found, expected)
    assert graphs.frame_count <= 2  # fixed sizes, then any


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpointing_gives_the_same_gradients(backend: str) -> None:
    case = make_case(PATTERN, [12, 7])
    plan = make_plan(PATTERN, case.key_valid)

    def layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q.sin(), k, v, plan=plan, backend=backend)

    plain, recomputed = case.inputs(), case.inputs()
    layer(**plain).backward(case.grad_out)
    checkpoint(layer, *recomputed.values(), use_reentrant=False).backward(case.grad_out)
    for name, x in plain.items():
        assert torch.equal(x.grad, recomputed[name].grad)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_the_regions_dtype(backend: str, dtype: torch.dtype) -> None:
    case = make_case(PATTERN, [12, 7], dtype=torch.float32)
    inputs = case.inputs()
    with torch.autocast("cpu", dtype=dtype):
        mixed = {**inputs, "k": inputs["k"].to(dtype)}
        out = attention(**mixed, plan=make_plan(PATTERN, case.key_valid), backend=backend)
    assert out.dtype == dtype
    out.backward(case.grad_out.to(dtype))
    for name, x in case.expected().items():
        found = out if name == "out" else inputs[name].grad
        torch.testing.assert_close(found.double(), x, rtol=0.0, atol=0.1)


def test_a_backward_inside_autocast_is_as_exact_as_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(band, "_flash_serves", lambda q: False)
    case = make_case(PATTERN, [12, 7], dtype=torch.float32)
    inputs = case.inputs()
    out = attention(**inputs, plan=make_plan(PATTERN, case.key_valid), backend="local")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out.backward(case.grad_out)
    found = {"out": out, **{name: x.grad for name, x in inputs.items()}}
    assert_same(found, case.expected(), atol=3e-6)


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
    plan = make_plan(Window(256, wrap=True), torch.ones(1, num_tokens, dtype=torch.bool))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = peak_bytes()
    attention(q, k, v, plan=plan, backend="local").sum().backward()
    assert q.grad.isfinite().all()
    return peak_bytes() - before

step(1000)
print(step(60_000))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_of_a_long_event_grows_linearly() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LONG_EVENT], capture_output=True, text=True, check=True
    )
    # The output and three gradients alone are 15 MB; with the blocks at work it is about 60 MB.
    assert 15e6 < int(result.stdout) < 200e6
