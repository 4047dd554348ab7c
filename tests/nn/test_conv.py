"""Convolutions and blocks see visible cells alone, and give what literal and naive ones give."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn import response_mlp
from hepattn.nn.channel_attention import ConvBlockAttention, NonLocal, SqueezeExcite
from hepattn.nn.conv import ConvNeXtBlock, DepthwiseConv, MaskedConv
from hepattn.nn.next_block import GlobalResponseNorm
from nn.image_cases import Stack, as_cells, draw, evaluate_cells, randomise

ATTENTIONS = (None, SqueezeExcite, ConvBlockAttention, NonLocal)


class LiteralBlock(nn.Module):
    """The block as published code writes it: channels first, permuted to last and back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, 4 * dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, 4 * dim))
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Update (B, C, H, W); the mask (B, 1, H, W) is 1 at masked cells."""
        residual, x = x, self.dwconv(x)
        if mask is not None:
            residual, x = residual * (1 - mask), x * (1 - mask)
        x = F.gelu(self.pwconv1(self.norm(x.permute(0, 2, 3, 1))))
        norms = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        x = self.gamma * (x * (norms / (norms.mean(-1, keepdim=True) + 1e-6))) + self.beta + x
        return residual + self.pwconv2(x).permute(0, 3, 1, 2)


def pair(dim: int, **options: object) -> tuple[ConvNeXtBlock, LiteralBlock]:
    ours, literal = randomise(ConvNeXtBlock(dim, **options)), LiteralBlock(dim).double()
    parts = {
        "dwconv": ours.mixer.conv,
        "norm": ours.norm,
        "pwconv1": ours.expand,
        "pwconv2": ours.contract,
    }
    for name, layer in parts.items():
        literal.get_submodule(name).load_state_dict(layer.state_dict())
    literal.gamma.data.copy_(ours.response.weight)
    literal.beta.data.copy_(ours.response.bias)
    return ours, literal


def gradients(out: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out.shape, generator=generator, dtype=out.dtype)
    return torch.autograd.grad(out, leaves, weight)


def test_a_block_is_the_literal_one() -> None:
    ours, literal = pair(5)
    x = torch.randn(2, 8, 6, 5, dtype=torch.float64, requires_grad=True)
    first, second = ours(x), literal(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert_close(first, second)
    assert_close(gradients(first, [x]), gradients(second, [x]))


def test_compatible_masking_is_that_of_the_literal_block() -> None:
    ours, literal = pair(5, masking="seed")
    x, visible = draw(3, 8, 6, 5, fill=2.0)
    mask = (~visible).double().unsqueeze(1)
    expected = literal(x.permute(0, 3, 1, 2), mask).permute(0, 2, 3, 1)
    assert_close(ours(x, visible), expected)


def test_compatible_masking_lets_masked_values_through() -> None:
    """What sparse masking is for."""
    block = randomise(ConvNeXtBlock(4, masking="seed"))
    x, visible = draw(3, 6, 6, 4, fill=0.0)
    other = torch.where(visible.unsqueeze(-1), x, 1.0)
    assert not torch.equal(block(x, visible)[visible], block(other, visible)[visible])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_block_is_computed_alike_with_and_without_the_fast_path(
    attention: Callable[[int], nn.Module] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = randomise(ConvNeXtBlock(6, attention=attention))
    x, visible = draw(5, 7, 5, 6, fill=0.0)
    x, visible[0] = torch.randn_like(x), True  # no ties, of which any maximum may be taken
    leaves = [x.requires_grad_(), *block.parameters()]
    monkeypatch.setattr(response_mlp, "HIDDEN_VALUES", 2 * 7 * 5 * 24)  # two events at a time
    nearly_all = torch.rand(5, 7, 5) < 0.97
    for seen in (None, visible, nearly_all):
        out = block(x, seen)
        fast = out, gradients(out, leaves)
        with monkeypatch.context() as context:
            context.setattr("hepattn.nn.next_block.can_fuse", lambda *_: False)
            out = block(x, seen)
            assert_close(fast, (out, gradients(out, leaves)))


def test_the_fast_operator_keeps_the_rules_of_torch() -> None:
    x = torch.randn(3, 5, 2, requires_grad=True)
    shapes = ((4, 2), (4,), (4,), (4,), (2, 4), (2,))
    parameters = [torch.randn(shape, requires_grad=True) for shape in shapes]
    visible = torch.rand(3, 5) < 0.5
    rules = ("test_schema", "test_faketensor", "test_autograd_registration")
    for seen in (None, visible):
        inputs = (x, seen, *parameters)
        torch.library.opcheck(torch.ops.hepattn.response_mlp, inputs, test_utils=rules)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("fill", [math.inf, math.nan])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_masked_values_influence_nothing(
    attention: Callable[[int], nn.Module] | None, fill: float, share: float
) -> None:
    stack = Stack(attention=attention)
    x, visible = draw(3, 9, 7, 2, visible=share, fill=0.0)
    broken = torch.where(visible.unsqueeze(-1), x, fill).requires_grad_()
    leaves = [x.requires_grad_(), *stack.parameters()]
    expected, seen = stack(x, visible)
    found, also_seen = stack(broken, visible)
    assert torch.equal(seen, also_seen)
    assert torch.equal(found, expected)
    assert (found[~seen] == 0).all()
    expected = gradients(expected, leaves)
    found = gradients(found, [broken, *stack.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(gradient.isfinite().all() for gradient in found)
    assert (found[0][~visible] == 0).all()


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.integers(1, 7), st.integers(1, 7), st.floats(0.1, 0.9))
def test_a_masked_dense_network_is_a_sparse_one(rows: int, columns: int, share: float) -> None:
    stack = Stack(dim=2)
    x, visible = draw(2, rows, columns, 2, visible=share)
    found, seen = stack(x, visible)
    cells = evaluate_cells(stack.layers, as_cells(x[0], visible[0]))
    assert set(cells) == {tuple(place) for place in seen[0].nonzero().tolist()}
    for place, expected in cells.items():
        assert_close(found[0][place], expected)
    assert not seen[1].any()


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_with_nothing_masked_it_is_the_dense_network(
    attention: Callable[[int], nn.Module] | None,
) -> None:
    stack = Stack(attention=attention)
    x = torch.randn(2, 9, 7, 2, dtype=torch.float64)
    found, seen = stack(x, torch.ones(2, 9, 7, dtype=torch.bool))
    assert seen.all()
    expected, all_seen = stack(x)
    assert all_seen is None
    assert_close(found, expected)


@pytest.mark.parametrize("rows", [2, 5])
def test_response_norm_is_that_of_a_loop(rows: int) -> None:
    norm = randomise(GlobalResponseNorm(3))
    x, visible = draw(3, rows, 4, 3)
    found = norm(x, visible)
    assert (found[~visible] == 0).all()
    for event in range(2):
        cells = x[event][visible[event]]  # (n, 3)
        norms = [math.sqrt(sum(float(v) ** 2 for v in channel)) for channel in cells.T]
        mean = sum(norms) / 3 + 1e-6
        for cell, out in zip(cells, found[event][visible[event]], strict=True):
            for c in range(3):
                gamma, beta = norm.weight[c], norm.bias[c]
                assert_close(out[c], gamma * cell[c] * norms[c] / mean + beta + cell[c])


def test_response_norm_starts_as_the_identity_and_survives_silence() -> None:
    x = torch.zeros(2, 3, 4, requires_grad=True)
    norm = GlobalResponseNorm(4)
    assert torch.equal(norm(x), x)
    nn.init.ones_(norm.weight)
    norm(x).sum().backward()
    assert (x.grad == 1).all()


@pytest.mark.parametrize("size", [(93, 44), (24, 6), (24, 9), (6, 5), (1, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 1), (2, 2), (3, 2), (4, 4), (7, 1)])
def test_same_padding_drops_no_cell(size: tuple[int, int], kernel: int, stride: int) -> None:
    conv = MaskedConv(1, 1, kernel, stride)
    nn.init.ones_(conv.conv.weight)
    out, _ = conv(torch.rand(1, *size, 1) + 0.1)
    rows, columns = (math.ceil(n / stride) for n in size)
    assert out.shape == (1, rows, columns, 1)
    assert conv.output_size(*size) == (rows, columns)
    x = torch.rand(1, *size, 1, requires_grad=True)
    assert (torch.autograd.grad(conv(x)[0].sum(), x)[0] > 0).all()


@pytest.mark.parametrize("padding", [0, 1, "same"])
def test_a_convolution_of_torch_is_a_special_case(padding: int | str) -> None:
    conv = MaskedConv(3, 5, 3, padding=padding)
    peer = nn.Conv2d(3, 5, 3, padding=padding)
    peer.load_state_dict(conv.conv.state_dict())
    x = torch.randn(2, 6, 7, 3)
    assert_close(conv(x)[0].permute(0, 3, 1, 2), peer(x.permute(0, 3, 1, 2)))


def test_an_odd_rest_goes_to_the_far_end() -> None:
    conv = MaskedConv(1, 1, 2, stride=2)
    nn.init.ones_(conv.conv.weight)
    nn.init.zeros_(conv.conv.bias)
    x = torch.arange(9.0).view(1, 3, 3, 1)
    expected = torch.tensor([[0.0 + 1 + 3 + 4, 2 + 5], [6 + 7, 8]])
    assert_close(conv(x)[0].squeeze(), expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [
        (3, 1, "same", [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (2, 2, "same", [[1, 0], [0, 0]]),
        (2, 1, 0, [[1, 0], [0, 0]]),
        (2, 1, 1, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_visible_cells_of_the_output(
    kernel: int, stride: int, padding: int | str, expected: list[list[int]]
) -> None:
    visible = torch.zeros(1, 3, 3, dtype=torch.bool)
    visible[0, 0, 0] = True
    out, seen = MaskedConv(2, 3, kernel, stride, padding)(torch.randn(1, 3, 3, 2), visible)
    assert torch.equal(seen[0], torch.tensor(expected, dtype=torch.bool))
    assert torch.equal(seen, (out != 0).any(-1))


def test_autocast_stays_near_full_precision() -> None:
    block = ConvNeXtBlock(8)
    nn.init.normal_(block.response.weight)
    x, visible = draw(3, 9, 7, 8)
    x = x.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = block(x, visible)
    assert_close(found.float(), block(x, visible), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("size", [(5, 4), (24, 25)])
def test_a_compiled_block_has_no_graph_breaks(size: tuple[int, int]) -> None:
    block = ConvNeXtBlock(8)
    compiled = torch.compile(copy.deepcopy(block), backend="aot_eager", fullgraph=True)
    x, visible = draw(2, *size, 8, fill=0.0)
    x = x.float().requires_grad_()
    first, second = block(x, visible), compiled(x, visible)
    assert_close(first, second)
    assert_close(gradients(first, [x]), gradients(second, [x]))


def test_drop_path_leaves_events_as_they_are() -> None:
    block = ConvNeXtBlock(4, drop_path=0.5)
    x = torch.randn(64, 3, 3, 4)
    same = (block(x) == x).flatten(1).all(1)
    assert 16 < same.sum() < 48
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNeXtBlock(4, kernel_size=4), "kernel_size=4 must be odd"),
        (lambda: DepthwiseConv(4, 0), "kernel_size=0 must be odd and positive"),
        (lambda: ConvNeXtBlock(4, expansion=0), "expansion=0"),
        (lambda: ConvNeXtBlock(4, masking="dense"), "masking='dense'"),
        (lambda: MaskedConv(1, 1, 2, stride=3), "stride=3 must be 1 to kernel_size=2"),
        (lambda: MaskedConv(1, 1, 2, padding=2), "padding=2"),
        (lambda: MaskedConv(1, 1, 2, padding="valid"), "padding='valid'"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
