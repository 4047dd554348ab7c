"""Attention with a dense bias, against its definition and within the rest of torch."""

# B events, H heads, M queries, N keys, E head features

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import hepattn.ops.attention.dense as dense
from hepattn.ops.attention.dense import DROPOUT_STEPS, dense_attention

B, H, M, N, E = 3, 4, 5, 6, 2
SCALE = 0.4
# The keys of three padded events, and some of the pairs of each.
PADDING = (torch.arange(N) < torch.tensor([[6], [3], [1]]))[:, None, None]  # (B, 1, 1, N)
PAIRS = (torch.arange(M)[:, None] + torch.arange(N) + torch.arange(B)[:, None, None]) % 3 != 0
MASKS = {"all": None, "padding": PADDING, "pairs": PAIRS[:, None], "shared": PAIRS[None, :1]}

Tensors = dict[str, Tensor]


def draw(dtype: torch.dtype = torch.float64, bias_shape: tuple[int, ...] = (B, H, M, N)) -> Tensors:
    """Draw q, k, v and bias, as leaves."""
    shapes = {"q": (B, H, M, E), "k": (B, H, N, E), "v": (B, H, N, E), "bias": bias_shape}
    return {x: torch.randn(shape).to(dtype).requires_grad_() for x, shape in shapes.items()}


def loop_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, kept: Tensor | None = None
) -> Tensor:
    """Attend query by query (B, H, M, E), with weights 0 or 1 / share where dropout acts."""
    B, H, M, E = q.shape
    N = k.shape[2]
    bias = bias.expand(B, H, M, N)
    mask = torch.ones(B, H, M, N).bool() if mask is None else mask.expand(B, H, M, N)
    kept = torch.ones(B, H, M, N) if kept is None else kept
    rows = []
    for b in range(B):
        for h in range(H):
            for i in range(M):
                seen = mask[b, h, i].nonzero()[:, 0]
                score = (k[b, h, seen] * q[b, h, i]).sum(-1) * SCALE + bias[b, h, i, seen]
                weight = score.exp() / score.exp().sum() * kept[b, h, i, seen]
                rows.append(weight @ v[b, h, seen])
    return torch.stack(rows).reshape(B, H, M, E)


def results(out: Tensor, leaves: Tensors) -> Tensors:
    """The output and every gradient by name, for a fixed gradient of the output."""
    grad_out = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).cos().view(out.shape)
    out.backward(grad_out.to(out.dtype))
    return {"out": out.detach(), **{name: x.grad for name, x in leaves.items()}}


def in_float64(leaves: Tensors) -> Tensors:
    return {name: x.detach().double().requires_grad_() for name, x in leaves.items()}


def copies(leaves: Tensors) -> Tensors:
    return {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}


def assert_same(found: Tensors, expected: Tensors, atol: float = 1e-12) -> None:
    for name, x in expected.items():
        torch.testing.assert_close(
            found[name].double(),
            x.double(),
            rtol=0.0,
            atol=atol,
            msg=lambda message, name=name: f"{name}: {message}",
        )


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("bias_shape", [(B, H, M, N), (1, H, M, N), (B, 1, M, N), (1, 1, 1, N)])
def test_outputs_and_gradients_follow_the_definition(
    bias_shape: tuple[int, ...], mask: Tensor | None
) -> None:
    leaves = draw(bias_shape=bias_shape)
    found = results(dense_attention(**leaves, mask=mask, scale=SCALE), leaves)
    leaves = in_float64(leaves)
    assert_same(found, results(loop_attention(**leaves, mask=mask), leaves))


@pytest.mark.parametrize("pairs", [1, 2 * N + 1, 3 * M * N, 2 * H * M * N])
@pytest.mark.parametrize("bias_shape", [(B, H, M, N), (1, 1, M, N), (B, H, 1, N)])
def test_the_size_of_a_chunk_does_not_change_the_answer(
    bias_shape: tuple[int, ...], pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = draw(bias_shape=bias_shape)
    found = []
    for size in (pairs, 10**6):
        monkeypatch.setattr(dense, "CHUNK_PAIRS", size)
        torch.manual_seed(1)
        again = copies(leaves)
        out = dense_attention(**again, mask=PADDING, dropout=0.3, scale=SCALE)
        found.append(results(out, again))
    assert_same(*found)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 2e-6), (torch.bfloat16, 6e-2), (torch.float16, 1e-2)]
)
def test_other_dtypes_agree_with_float64(dtype: torch.dtype, atol: float) -> None:
    leaves = draw(dtype)
    found = results(dense_attention(**leaves, mask=PADDING, scale=SCALE), leaves)
    assert all(x.dtype == dtype for x in found.values())
    leaves = in_float64(leaves)
    assert_same(found, results(loop_attention(**leaves, mask=PADDING), leaves), atol)


def test_gradients_match_finite_differences() -> None:
    leaves = {name: x.detach()[:, :2, :3, :3] for name, x in draw().items()}
    leaves["bias"] = leaves["bias"][:1]

    def attend(*tensors: Tensor) -> Tensor:
        inputs = dict(zip(leaves, tensors, strict=True))
        torch.manual_seed(1)
        return dense_attention(**inputs, mask=PADDING[..., :3], dropout=0.3, scale=SCALE)

    assert torch.autograd.gradcheck(attend, tuple(copies(leaves).values()))


def test_any_layout_in_memory_is_taken() -> None:
    leaves = draw()
    found = results(dense_attention(**leaves, scale=SCALE), leaves)
    # Tokens or pairs first, as projections leave them.
    tokens_first = {
        "q": leaves["q"].detach().transpose(1, 2).contiguous().transpose(1, 2),
        "k": leaves["k"].detach().mT.contiguous().mT,
        "v": leaves["v"].detach().transpose(1, 2).contiguous().transpose(1, 2),
        "bias": leaves["bias"].detach().movedim(1, -1).contiguous().movedim(-1, 1),
    }
    for x in tokens_first.values():
        x.requires_grad_()
    out = dense_attention(**tokens_first, scale=SCALE)
    assert_same(results(out, tokens_first), found)


def test_gradients_are_exactly_zero_where_masked() -> None:
    leaves = draw()
    with torch.no_grad():
        leaves["bias"][1, :, :, 4] = 1e4  # would overflow an exponential
    dense_attention(**leaves, mask=PADDING, scale=SCALE).sum().backward()
    masked = ~PADDING.expand(B, H, M, N)
    assert leaves["bias"].grad[masked].eq(0).all()
    for name in ("k", "v"):
        assert leaves[name].grad[masked[:, :, 0]].eq(0).all()


def test_a_bias_may_mask_by_itself() -> None:
    leaves = draw()
    mask = MASKS["pairs"]
    found = results(dense_attention(**leaves, mask=mask, scale=SCALE), leaves)
    masked = copies(leaves)
    with torch.no_grad():
        masked["bias"].masked_fill_(~mask, float("-inf"))
    assert_same(results(dense_attention(**masked, scale=SCALE), masked), found)


def test_a_bias_without_gradient_gets_none() -> None:
    leaves = draw()
    found = results(dense_attention(**leaves, mask=PADDING, scale=SCALE), leaves)
    constant = copies(leaves)
    bias = constant.pop("bias").detach()
    out = dense_attention(**constant, bias=bias, mask=PADDING, scale=SCALE)
    for name, x in results(out, constant).items():
        assert torch.equal(x, found[name])
    assert bias.grad is None


@pytest.mark.parametrize("shape", [(0, M, N), (B, 0, N), (B, M, 0)])
def test_nothing_to_attend_gives_zeros(shape: tuple[int, int, int]) -> None:
    events, queries, keys = shape
    leaves = {
        "q": torch.randn(events, H, queries, E, requires_grad=True),
        "k": torch.randn(events, H, keys, E, requires_grad=True),
        "v": torch.randn(events, H, keys, E, requires_grad=True),
        "bias": torch.randn(1, H, queries, keys, requires_grad=True),
    }
    found = results(dense_attention(**leaves, scale=SCALE), leaves)
    assert found["out"].shape == leaves["q"].shape
    for name, x in leaves.items():
        assert torch.equal(found[name], torch.zeros_like(x))


def test_dropout_follows_the_definition_given_its_pattern() -> None:
    leaves = draw()
    torch.manual_seed(1)
    out = dense_attention(**leaves, mask=PADDING, dropout=0.25, scale=SCALE)
    found = results(out, leaves)
    torch.manual_seed(1)
    kept = dense._draw_kept(leaves["q"].detach(), leaves["k"].detach(), DROPOUT_STEPS // 4)
    assert 0 < kept.sum() < kept.numel()
    leaves = in_float64(leaves)
    expected = loop_attention(**leaves, mask=PADDING, kept=kept.double() / 0.75)
    assert_same(found, results(expected, leaves))


def test_dropout_keeps_the_mean() -> None:
    leaves = {name: x.detach() for name, x in draw().items()}
    expected = dense_attention(**leaves, mask=PADDING, scale=SCALE)
    many = [dense_attention(**leaves, mask=PADDING, dropout=0.2, scale=SCALE) for _ in range(1000)]
    error = torch.stack(many).std(0) / 1000**0.5
    assert ((torch.stack(many).mean(0) - expected).abs() < 5 * error + 1e-12).all()


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_weights_are_dropped_independently_at_the_asked_rate(dropout: float) -> None:
    q = k = torch.empty(4, 2, 100, 1)
    dropped = ~dense._draw_kept(q, k, round(dropout * DROPOUT_STEPS))
    error = (dropout * (1 - dropout) / dropped.numel()) ** 0.5
    assert dropped.double().mean() == pytest.approx(dropout, abs=5 * error)
    both = (dropped[..., 1:] & dropped[..., :-1]).double().mean()
    assert both == pytest.approx(dropout**2, abs=5 * error)


def test_without_dropout_nothing_is_drawn() -> None:
    leaves = draw()
    state = torch.get_rng_state()
    results(dense_attention(**leaves, dropout=0.0, scale=SCALE), leaves)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_backward_draws_nothing() -> None:
    out = dense_attention(**draw(), dropout=0.3, scale=SCALE)
    state = torch.get_rng_state()
    out.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_repeats_the_pattern_of_dropout(use_reentrant: bool) -> None:
    def layer(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return dense_attention(q.sin(), k, v, bias=bias.sin(), dropout=0.3, scale=SCALE).cos()

    leaves = draw()
    torch.manual_seed(1)
    found = results(layer(**leaves), leaves)
    again = copies(leaves)
    torch.manual_seed(1)
    out = checkpoint(layer, *again.values(), use_reentrant=use_reentrant)
    torch.manual_seed(2)
    for name, x in results(out, again).items():
        assert torch.equal(x, found[name])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_compiled_function_gives_the_same_answer(dropout: float) -> None:
    def layer(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        bias = bias.sin()
        return dense_attention(
            q.sin(), k, v, bias=bias, mask=PADDING, dropout=dropout, scale=SCALE
        ).cos()

    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=graphs)
    for num_heads in (4, 3, 2):
        leaves = {name: x.detach()[:, :num_heads] for name, x in draw().items()}
        found = []
        for function in (compiled, layer):
            torch.manual_seed(1)
            again = copies(leaves)
            found.append(results(function(**again), again))
        assert_same(*found)
    assert graphs.frame_count <= 2  # fixed sizes, then any


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_the_regions_dtype(dtype: torch.dtype) -> None:
    leaves = draw(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        out = dense_attention(**{**leaves, "k": leaves["k"].to(dtype)}, scale=SCALE)
        assert out.dtype == dtype
        found = results(out, leaves)
    assert all(found[name].dtype == torch.float32 for name in leaves)
    leaves = in_float64(leaves)
    assert_same(found, results(loop_attention(**leaves, mask=None), leaves), atol=0.1)


def test_a_backward_within_autocast_is_not_rounded_again() -> None:
    leaves = draw(torch.float32)
    found = results(dense_attention(**leaves, scale=SCALE), leaves)
    again = copies(leaves)
    out = dense_attention(**again, scale=SCALE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(results(out, again), found)


def test_autocast_leaves_float64_alone() -> None:
    leaves = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = dense_attention(**leaves, scale=SCALE)
    assert_same({"out": out}, {"out": loop_attention(**leaves, mask=None)})


@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16])
def test_the_operators_keep_the_rules_of_custom_operators(bias_dtype: torch.dtype) -> None:
    q, k, v, bias = draw(torch.float32).values()
    kept = dense._draw_kept(q.detach(), k.detach(), 20000)
    bias = bias.detach().to(bias_dtype).requires_grad_()
    options = (0.7, SCALE)
    torch.library.opcheck(dense._dense_forward, (q, k, v, bias, None, None, *options))
    torch.library.opcheck(dense._dense_forward, (q, k, v, bias, PADDING, kept, *options))
    tensors = tuple(x.detach() for x in (q, q, k, v, bias))
    for needs_bias in (True, False):
        arguments = (*tensors, PADDING, kept, q.detach(), *options, needs_bias)
        torch.library.opcheck(dense._dense_backward, arguments)
