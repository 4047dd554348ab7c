"""Attention inside images gives what loops over visible cells give."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.channel_attention import ConvBlockAttention, NonLocal, SqueezeExcite
from nn.image_cases import as_cells, draw, randomise


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def gate(network: nn.Sequential, x: Tensor) -> Tensor:
    first, _, second = network
    return second.weight @ (first.weight @ x + first.bias).clamp(min=0) + second.bias


def squeeze_excite(layer: SqueezeExcite, cells: dict) -> dict:
    mean = sum(cells.values()) / len(cells)
    return {place: x * sigmoid(gate(layer.gate, mean)) for place, x in cells.items()}


def block_attention(layer: ConvBlockAttention, cells: dict) -> dict:
    stacked = torch.stack(list(cells.values()))
    channels = gate(layer.gate, stacked.mean(0)) + gate(layer.gate, stacked.max(0).values)
    cells = {place: x * sigmoid(channels) for place, x in cells.items()}
    half, out = layer.conv.kernel_size[0] // 2, {}
    for h, w in cells:
        score = layer.conv.bias.clone()
        for (row, column), x in cells.items():
            i, j = row - h + half, column - w + half
            if min(i, j) >= 0 and max(i, j) <= 2 * half:
                mean, highest = layer.conv.weight[0, :, i, j]
                score = score + mean * x.mean() + highest * x.max()
        out[h, w] = cells[h, w] * sigmoid(score)
    return out


def non_local(layer: NonLocal, cells: dict) -> dict:
    inner, out = layer.attention, {}
    keys, values = zip(*(inner.key_value(x).chunk(2) for x in cells.values()), strict=True)
    for place, x in cells.items():
        scores = torch.stack([inner.query(x) @ key for key in keys]) / math.sqrt(len(keys[0]))
        weight = scores.exp() / scores.exp().sum()
        out[place] = x + inner.out(sum(w * v for w, v in zip(weight, values, strict=True)))
    return out


LOOPS = {
    SqueezeExcite: squeeze_excite,
    ConvBlockAttention: block_attention,
    NonLocal: non_local,
}


@pytest.mark.parametrize("kind", LOOPS)
def test_it_is_that_of_a_loop_over_visible_cells(kind: Callable[[int], nn.Module]) -> None:
    layer = randomise(kind(6))
    x, visible = draw(3, 5, 4, 6)
    visible[0], x[0] = True, torch.randn_like(x[0])
    found = layer(x, visible)
    assert (found[~visible] == 0).all()
    for event in range(2):
        for place, expected in LOOPS[kind](layer, as_cells(x[event], visible[event])).items():
            assert_close(found[event][place], expected)


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("fill", [math.inf, math.nan])
def test_masked_values_influence_no_output_and_no_gradient(
    kind: Callable[[int], nn.Module], fill: float
) -> None:
    layer = randomise(kind(6))
    x, visible = draw(3, 5, 4, 6, fill=fill)
    clean = torch.where(visible.unsqueeze(-1), x, 0.0)
    answers = []
    for image in (x, clean):
        image.requires_grad_()
        out = layer(image, visible)
        leaves = [image, *layer.parameters()]
        answers.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))
    assert all(answer.isfinite().all() for answer in answers[0])


@pytest.mark.parametrize("kind", [SqueezeExcite, NonLocal])
def test_places_need_not_be_an_image(kind: Callable[[int], nn.Module]) -> None:
    layer = randomise(kind(6))
    x, visible = draw(3, 5, 4, 6)
    assert_close(layer(x.flatten(1, 2), visible.flatten(1)), layer(x, visible).flatten(1, 2))


def test_a_non_local_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 4, 3, 8)
    assert torch.equal(NonLocal(8, num_heads=2)(x), x)


@pytest.mark.parametrize("kind", [SqueezeExcite, ConvBlockAttention])
def test_few_channels_leave_one_hidden_unit(kind: Callable[[int], nn.Module]) -> None:
    assert kind(4).gate[0].out_features == 1
    assert kind(64).gate[0].out_features == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SqueezeExcite(4, reduction=0), "reduction=0"),
        (lambda: ConvBlockAttention(4, kernel_size=2), "kernel_size=2 must be odd"),
        (lambda: NonLocal(8, num_heads=3), "num_heads=3 must divide half of dim=8"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
