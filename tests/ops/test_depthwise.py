"""The depthwise convolution is torch's, with gradients of large images by another way."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.ops.depthwise import _has_slow_gradient, depthwise_conv


def draw(size: tuple[int, int], dim: int = 8, width: int = 7) -> list[Tensor]:
    shapes = ((3, *size, dim), (dim, 1, width, width), (dim,))
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x, weight, bias = x.double(), weight.double(), bias.double()
    half = weight.shape[-1] // 2
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=half, groups=len(bias)).permute(
        0, 2, 3, 1
    )


@pytest.mark.parametrize("width", [3, 7])
@pytest.mark.parametrize("size", [(5, 4), (30, 21), (2, 300)])
@pytest.mark.parametrize("is_fast", [True, False])
def test_output_and_gradients_are_those_in_double_precision(
    size: tuple[int, int], width: int, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepattn.ops.depthwise._has_slow_gradient", lambda *_: is_fast)
    inputs = draw(size, width=width)
    found, expected = depthwise_conv(*inputs), reference(*inputs)
    assert_close(found, expected.float())
    assert found.is_contiguous()
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, weight)
    assert_close(
        gradients,
        torch.autograd.grad(expected, inputs, weight.double()),
        atol=2e-4,
        rtol=1e-4,
    )


def test_gradients_of_any_layout_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepattn.ops.depthwise._has_slow_gradient", lambda *_: True)
    x, weight, bias = draw((6, 5))
    strided = x.detach().permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3).requires_grad_()
    answers = [
        torch.autograd.grad(depthwise_conv(image, weight, bias).sum(), [image, weight, bias])
        for image in (x, strided)
    ]
    assert_close(*answers)


def test_its_operator_keeps_the_rules_of_torch() -> None:
    x, weight, bias = draw((6, 5))
    inputs = (x.permute(0, 3, 1, 2), weight, bias)
    rules = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.hepattn.depthwise_conv, inputs, test_utils=rules)


def test_small_images_and_other_formats_stay_with_torch() -> None:
    for x, weight, _ in (draw((5, 4)), draw((40, 40), dim=12)):
        assert not _has_slow_gradient(x.permute(0, 3, 1, 2), weight)
    x, weight, _ = draw((40, 40))
    assert not _has_slow_gradient(x.permute(0, 3, 1, 2).double(), weight.double())
    with torch.no_grad():
        assert not _has_slow_gradient(x.permute(0, 3, 1, 2), weight)
