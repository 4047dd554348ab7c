"""Depthwise convolution of images, channels last, with a fast gradient of its weight on the CPU."""

# B events, H rows, W columns, C channels, k width of the kernel

import torch
from torch import Tensor
from torch.nn import functional as F

HAS_SLOW_KERNEL = (
    torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX2"
)
LARGE_IMAGE = 512  # cells from which on one convolution an event is faster than one for all


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel by itself; the image keeps its size.

    Args:
        x: Images (B, H, W, C).
        weight: Kernels (C, 1, k, k), k odd.
        bias: Added to each channel (C).

    Returns:
        (B, H, W, C)
    """
    image = x.permute(0, 3, 1, 2)  # (B, C, H, W): names alone, torch's channels-last memory
    convolve = _depthwise_conv if _has_slow_gradient(image, weight) else _convolve
    return convolve(image, weight, bias).permute(0, 2, 3, 1)


def _has_slow_gradient(image: Tensor, weight: Tensor) -> bool:
    """Tell where oneDNN has no kernel of its own for the gradient, but a fast convolution.

    With AVX2 it treats the channels like groups of eight, of which seven are zero.
    """
    return (
        torch.is_grad_enabled()
        and image.device.type == "cpu"
        and image.dtype == weight.dtype == torch.float32
        and image.shape[1] % 8 == 0
        and image.shape[2] * image.shape[3] >= LARGE_IMAGE
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
        and HAS_SLOW_KERNEL
    )


def _convolve(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(image, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


@torch.library.custom_op("hepattn::depthwise_conv", mutates_args=())
def _depthwise_conv(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _convolve(image, weight, bias)


@torch.library.custom_op("hepattn::depthwise_conv_backward", mutates_args=())
def _depthwise_conv_backward(
    grad: Tensor, image: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    num_channels, half = weight.shape[0], weight.shape[-1] // 2
    grad = grad.contiguous(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    grad_image = F.conv2d(grad, weight.flip(2, 3), padding=half, groups=num_channels)
    # Each image is convolved with its gradient, a kernel as large as the image.
    grad_weight = torch.zeros_like(weight).squeeze(1)  # (C, k, k)
    for x, kernel in zip(image, grad, strict=True):
        found = F.conv2d(x[None], kernel.unsqueeze(1), padding=half, groups=num_channels)
        grad_weight += found[0]
    return grad_image, grad_weight.unsqueeze(1), grad.sum((0, 2, 3))


@_depthwise_conv.register_fake
def _(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _convolve(image, weight, bias)


@_depthwise_conv_backward.register_fake
def _(grad: Tensor, image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    like = torch.empty_like(image, memory_format=torch.channels_last)
    return like, weight.new_empty(weight.shape), weight.new_empty(weight.shape[0])


def _keep(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs[:2])


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _depthwise_conv_backward(grad, *ctx.saved_tensors)


_depthwise_conv.register_autograd(_differentiate, setup_context=_keep)
