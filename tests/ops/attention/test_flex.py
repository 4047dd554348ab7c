"""FlexAttention gives the answer of the definition, skips what is unseen and compiles rarely."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import hepattn.ops.attention.flex as flex
import hepattn.ops.attention.flex_blocks as flex_blocks
from hepattn.ops.attention import (
    Full,
    Plan,
    Registers,
    Window,
    attention,
    make_packed_plan,
    make_plan,
)
from reference.attention import Case, assert_same, make_case, prefix_valid
from reference.attention_cases import cases, dense_reference, plan_on

draws = settings(derandomize=True, deadline=None, max_examples=80)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
# Torch's compiler warns about torch itself, a cache that it looks through and biases that other
# functions computed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method"),
    pytest.mark.filterwarnings("ignore:.*functools.lru_cache"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


@contextmanager
def uncompiled(block_size: int = 128) -> Iterator[None]:
    """Compute without compiling; torch then evaluates the mask at every pair."""
    with (
        patch.object(flex, "_kernel", lambda: torch_flex.flex_attention),
        patch.object(flex_blocks, "BLOCK_SIZE", block_size),
        patch.object(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True),
    ):
        yield


def forward(case: Case) -> Tensor:
    inputs = {name: x.detach() for name, x in case.inputs().items()}
    return attention(**inputs, plan=case.plan(), scale=case.scale, backend="flex")


def assert_forward(case: Case, reference: Callable[[Case], dict[str, Tensor]]) -> None:
    expected = {"out": reference(case)["out"]}
    assert_same({"out": forward(case)}, expected, atol=TOLERANCE[case.q.dtype])


@draws
@given(case=cases("flex"))
def test_matches_the_definition(case: Case) -> None:
    with uncompiled():
        assert_forward(case, Case.expected)


@settings(draws, max_examples=50)
@given(case=cases("flex"))
def test_padding_and_what_sees_nothing_are_exactly_zero(case: Case) -> None:
    with uncompiled():
        out = forward(case)
    sees = (case.loop_weights() != 0).any(-1)  # (B, H, M)
    assert not out[~sees].any()


@draws
@given(case=cases("flex"), size=st.sampled_from([1, 2, 3, 5, 128]))
def test_blocks_hold_every_visible_pair_and_full_ones_no_other(case: Case, size: int) -> None:
    if not case.q.numel():
        return
    plan = case.plan()
    with uncompiled(size):
        sight = flex_blocks.look(plan)
    seen = visible_pairs(plan)
    part, full = (
        fill_blocks(*sight.blocks[at : at + 2], size).expand(len(seen), -1, -1) for at in (0, 2)
    )
    part, full = (x[:, : seen.shape[1], : seen.shape[2]] for x in (part, full))
    assert not (part & full).any()
    assert not (full & ~seen).any()
    assert not (seen & ~part & ~full).any()


@draws
@given(case=cases("flex", is_cross=False), size=st.sampled_from([1, 2, 3, 5]))
def test_every_block_holds_a_visible_pair(case: Case, size: int) -> None:
    # With registers, masks or several events a block may be listed in vain.
    case = replace(case, registers=Registers(0), mask=None)
    if case.packed or not case.q.numel():
        return
    plan = case.plan()
    with uncompiled(size):
        part, _, full, _ = flex_blocks.look(plan).blocks
    padding = -plan.key_valid.shape[1] % size
    seen = torch.nn.functional.pad(visible_pairs(plan), (0, padding, 0, padding))
    blocks = seen.unflatten(2, (-1, size)).unflatten(1, (-1, size)).any(4).any(2)  # (B, I, J)
    assert torch.equal((part + full)[:, 0].expand(len(seen), -1).long(), blocks.sum(2))


@draws
@given(case=cases("flex"))
def test_lists_for_the_backward_are_those_of_torch(case: Case) -> None:
    if not case.q.numel():
        return
    plan = case.plan()
    with uncompiled(2):
        blocks = flex_blocks._find_blocks(plan, plan.queries, is_backward=True)
    expected = torch_flex.BlockMask.from_kv_blocks(*blocks[:4])
    names = ("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")
    for name, x in zip(names, blocks[4:], strict=True):
        count = expected.q_num_blocks if "full" not in name else expected.full_q_num_blocks
        listed = torch.ones(()) > 0
        if "indices" in name:  # the order of blocks that are not chosen does not matter
            listed = torch.arange(x.shape[3]) < count[..., None]
        assert torch.equal(x * listed, getattr(expected, name) * listed), name


@pytest.mark.parametrize("wrap", [False, True])
def test_a_long_window_has_few_blocks_most_of_them_full(wrap: bool) -> None:
    num_tokens, window = 60_000, 1024
    plan = make_plan(Window(window, wrap=wrap), prefix_valid([num_tokens], num_tokens))
    part, _, full, indices = flex_blocks.look(plan).blocks
    num_blocks = -(-num_tokens // flex_blocks.BLOCK_SIZE)
    assert indices.shape == (1, 1, num_blocks, num_blocks)
    assert part.median() <= 2
    assert full.median() == window // flex_blocks.BLOCK_SIZE - 1
    assert part.sum() + full.sum() <= num_blocks * (window // flex_blocks.BLOCK_SIZE + 2)


def test_packed_windows_stay_within_their_events() -> None:
    plan = make_packed_plan(Window(256, wrap=True), [3000, 1, 5000, 900], registers=Registers(1))
    part, _, full, _ = flex_blocks.look(plan).blocks
    # Window, both ends of the event, registers of the events in the block.
    assert (part + full).median() <= 5


def test_layers_share_the_blocks_of_a_plan_but_not_of_its_restriction() -> None:
    plan = make_plan(Window(2), prefix_valid([300], 300))
    assert flex_blocks.look(plan) is flex_blocks.look(plan)
    first = torch.zeros(1, 300, 300, dtype=torch.bool)
    first[:, :10, :10] = True
    part, _, full, _ = flex_blocks.look(plan.restrict(first)).blocks
    assert (part + full).flatten().tolist() == [1, 0, 0]


def test_parameters_are_welcome_where_gradients_are_off() -> None:
    case = make_case(Window(2), [5, 3], dtype=torch.float32, offset_bias_shape=(2, 3))
    with uncompiled(), torch.no_grad():
        out = attention(**case.inputs(), plan=case.plan(), backend="flex")
    assert torch.equal(out, forward_uncompiled(case))


def test_autocast_sets_the_dtype() -> None:
    case = make_case(Window(2), [5, 3], dtype=torch.float32, bias_shape=(1, 2))
    with uncompiled(), torch.autocast("cpu", torch.bfloat16):
        out = forward(case)
    assert out.dtype == torch.bfloat16
    expected = {"out": case.expected()["out"]}
    assert_same({"out": out}, expected, atol=TOLERANCE[torch.bfloat16])


@pytest.mark.slow
class TestCompiled:
    """On a CPU, forward: torch has no backward there. Each kind of request compiles once."""

    def test_one_kernel_serves_all_lengths_and_windows(self) -> None:
        counter = CompileCounterWithBackend("inductor")
        kernel = flex._kernel(counter)
        with patch.object(flex, "_kernel", lambda: kernel):
            for lengths, window in zip(
                ([300, 200], [517, 12], [1000, 4], [700, 700], [3, 411]),
                (64, 32, 512, 2, 128),
                strict=True,
            ):
                assert_forward(
                    make_case(
                        Window(window, wrap=True),
                        lengths,
                        registers=Registers(3, stride=50),
                        num_key_heads=1,
                        dim=5,
                        dtype=torch.float32,
                        offset_bias_shape=(2, 9),
                        extra=5,
                    ),
                    dense_reference,
                )
        assert counter.frame_count <= 2

    def test_masks_biases_and_packed_events_work_at_all_sizes(self) -> None:
        counter = CompileCounterWithBackend("inductor")
        kernel = flex._kernel(counter)
        with patch.object(flex, "_kernel", lambda: kernel):
            for lengths in ([300, 200], [517, 12], [700, 3]):
                assert_forward(
                    make_case(
                        Window(20),
                        lengths,
                        dtype=torch.float32,
                        bias_shape=(1, 2),
                        mask=True,
                        packed=True,
                        scale=-1.0,
                        extra=3,
                    ),
                    dense_reference,
                )
        assert counter.frame_count <= 2

    def test_a_single_query_with_distant_keys_is_exact(self) -> None:
        # Torch's kernel for a single query fails where most keys are masked and scores are low.
        case = make_case(Full(), [900, 40], query_lengths=[1, 1], dtype=torch.float32)
        low = replace(case, q=case.q.abs() * 100, k=-case.k.abs() * 10)
        assert_forward(low, dense_reference)

    def test_a_compiled_layer_may_go_on_with_the_output(self) -> None:
        def layer(x: Tensor, valid: Tensor, backend: str) -> Tensor:
            plan = make_plan(Window(8, wrap=True), valid)
            for _ in range(2):
                x = x + 2 * attention(x, x, x, plan=plan, backend=backend).relu()
            return x

        counter = CompileCounterWithBackend("inductor")
        compiled = torch.compile(layer, fullgraph=True, backend=counter)
        for num_tokens in (300, 420, 1000, 555, 700):
            x = torch.randn(2, 2, num_tokens, 4)
            valid = prefix_valid([num_tokens, num_tokens // 2], num_tokens)
            torch.testing.assert_close(
                compiled(x, valid, "flex"), layer(x, valid, "sdpa"), rtol=1e-5, atol=1e-5
            )
        assert counter.frame_count <= 3


GRADIENT_CASES = [
    {"pattern": Window(8), "registers": Registers(3)},
    {"pattern": Window(8, wrap=True), "registers": Registers(2, 5), "offset_bias_shape": (2, 9)},
    {"pattern": Window(8), "bias_shape": (1, 2), "offset_bias_shape": (1, 33), "mask": True},
    {"pattern": Full(), "bias_shape": (1, 1), "packed": True, "num_key_heads": 1},
    {"pattern": Window(8), "query_lengths": [30, 15, 0], "centres": True},
]
each_gradient_case = pytest.mark.parametrize(
    "options", GRADIENT_CASES, ids=lambda options: "-".join(str(x) for x in options.values())
)


def gradient_case(options: dict[str, object], **more: object) -> Case:
    rest = {name: x for name, x in options.items() if name != "pattern"}
    return make_case(options["pattern"], [40, 3, 17], extra=5, **rest, **more)


@each_gradient_case
def test_gradients_are_those_of_the_definition(options: dict[str, object]) -> None:
    # Torch refuses gradients on a CPU for its kernel's sake. Its formula has them.
    case = gradient_case(options, dtype=torch.float32)
    plan, inputs = case.plan(), case.inputs()
    kernel = flex._kernel("eager")
    find_blocks = flex_blocks._find_blocks
    with (
        patch.object(torch_flex, "_validate_device", lambda *tensors: None),
        patch.object(flex, "_kernel", lambda: kernel),
        patch.object(flex_blocks, "_find_blocks", lambda *args: find_blocks(*args[:2], True)),
    ):
        out = flex._attend(
            inputs["q"],
            inputs["k"],
            inputs["v"],
            *flex_blocks.look(plan),
            inputs.get("bias"),
            inputs.get("offset_bias"),
            -1 if isinstance(case.pattern, Full) else case.pattern.half,
            case.pattern.wrap,
            case.registers.num > 0,
            0.5,
        )
        out.backward(case.grad_out)
    found = {"out": out.detach(), **{name: x.grad for name, x in inputs.items()}}
    assert_same(found, dense_reference(replace(case, scale=0.5)), atol=3e-6)


@pytest.mark.gpu
@on_gpu
class TestOnGPU:
    """Forward and backward."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @each_gradient_case
    def test_matches_the_definition(self, options: dict[str, object], dtype: torch.dtype) -> None:
        case = gradient_case(options, dim=16, dtype=dtype)
        atol = 1e-5 if dtype == torch.float32 else 5e-2
        assert_same(on_device(case, "cuda"), dense_reference(case), atol=atol)

    @pytest.mark.parametrize("wrap", [False, True])
    def test_many_blocks_of_different_kinds(self, wrap: bool) -> None:
        case = make_case(
            Window(512, wrap=wrap),
            [2000, 3, 700],
            registers=Registers(3, stride=300),
            dim=16,
            dtype=torch.float32,
            extra=5,
        )
        assert_same(on_device(case, "cuda"), dense_reference(case), atol=1e-5)

    @pytest.mark.parametrize("dim", [4, 24])
    def test_any_number_of_features(self, dim: int) -> None:
        case = make_case(Window(32), [200], dim=dim, dtype=torch.float32)
        assert_same(on_device(case, "cuda"), dense_reference(case), atol=1e-5)


def forward_uncompiled(case: Case) -> Tensor:
    with uncompiled():
        return forward(case)


def on_device(case: Case, device: str) -> dict[str, Tensor]:
    """The output and every gradient of a case that is computed on a device."""
    inputs = {name: x.detach().to(device).requires_grad_() for name, x in case.inputs().items()}
    plan = plan_on(case, device)
    out = attention(**inputs, plan=plan, scale=case.scale, backend="flex")
    out.backward(case.grad_out.to(device))
    return {"out": out.detach().cpu(), **{name: x.grad.cpu() for name, x in inputs.items()}}


def visible_pairs(plan: Plan) -> Tensor:
    """True where a real query sees a key (B, M, N)."""
    shape = (*plan.query_valid.shape, plan.key_valid.shape[1])
    visible = plan.visible()
    visible = torch.ones(shape, dtype=torch.bool) if visible is None else visible[:, 0]
    return (visible & plan.query_valid[:, :, None]).expand(shape)


def fill_blocks(count: Tensor, order: Tensor, size: int) -> Tensor:
    """True in the blocks that are listed (B, I size, J size)."""
    chosen = torch.zeros(order.shape, dtype=torch.bool)
    listed = torch.arange(order.shape[3]) < count[..., None]
    chosen.scatter_(3, order.long(), listed)
    return chosen[:, 0].repeat_interleave(size, 1).repeat_interleave(size, 2)
