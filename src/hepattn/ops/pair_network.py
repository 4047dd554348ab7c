"""The small network that is applied to every pair of particles, in chunks that stay in the cache.

It is a chain of batch normalisation, linear map, batch normalisation, GELU, linear map and so on.
An event of 128 particles has 8,256 pairs, so that this network is what costs most, and most of
that is the memory that its layers write and read. Here a chunk of pairs goes through several layers
at once. In training, where each batch normalisation needs all pairs before the next layer can
start, only the sums before the normalisations are kept; the backward computes the rest again.
"""

# P pairs, p pairs of a chunk, C input features, D features of a layer, H heads

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Pairs of a chunk: with 64 features a megabyte of float32, on the CPU the fastest of 2^9 to 2^15.
CHUNK = 4096


class Layer(NamedTuple):
    """A linear map and the batch normalisation after it.

    Attributes:
        weight: Weights (D out, D in).
        bias: Bias (D out).
        gain: Factor of the normalisation (D out).
        shift: Bias of the normalisation (D out).
    """

    weight: Tensor
    bias: Tensor
    gain: Tensor
    shift: Tensor


class Moments(NamedTuple):
    """Mean and variance, not corrected for the number of pairs, of features (D)."""

    mean: Tensor
    var: Tensor


def pair_network(
    x: Tensor,
    layers: Sequence[Layer],
    moments: Sequence[Moments],
    *,
    eps: float,
    activate_last: bool,
) -> Tensor:
    """Apply the network with known moments; without a backward.

    Args:
        x: Features of the pairs (C, P).
        layers: The normalisation of the input, whose weight and bias are not used, and the layers.
        moments: Moments of the input and of each layer's sums.
        eps: Added to variances.
        activate_last: Whether a GELU follows the last layer.

    Returns:
        (H, P)
    """
    folded = fold(layers, moments, eps)
    out = x.new_empty(len(folded[-1][1]), x.shape[1])  # (H, P)
    for part in _chunks(x.shape[1]):
        h = x[:, part].T  # (p, C)
        for weight, bias in folded[:-1]:
            h = torch.ops.aten.gelu_(F.linear(h, weight, bias))  # (p, D)
        weight, bias = folded[-1]
        torch.addmm(bias[:, None], weight, h.T, out=out[:, part])
    return torch.ops.aten.gelu_(out) if activate_last else out


def fold(
    layers: Sequence[Layer], moments: Sequence[Moments], eps: float
) -> list[tuple[Tensor, Tensor]]:
    """Make each normalisation a part of the linear map before it, the input's of that after it.

    Returns:
        Weight and bias of each linear map.
    """
    scales = [layer.gain * (m.var + eps).rsqrt() for layer, m in zip(layers, moments, strict=True)]
    shift = layers[0].shift - moments[0].mean * scales[0]  # (C)
    folded = []
    for i, (layer, scale) in enumerate(zip(layers[1:], scales[1:], strict=True)):
        weight, bias = layer.weight, layer.bias
        if i == 0:
            weight, bias = weight * scales[0], bias + weight @ shift
        bias = layer.shift + (bias - moments[i + 1].mean) * scale
        folded.append((weight * scale[:, None], bias))
    return folded


def train_pair_network(
    x: Tensor, layers: Sequence[Layer], *, eps: float, activate_last: bool
) -> tuple[Tensor, list[Moments]]:
    """Apply the network with the moments of the batch, and with gradients of its parameters.

    There is no gradient of the features, and there are no second derivatives.

    Args:
        x: Features of the pairs (C, P), at least one.
        layers: The normalisation of the input, whose weight and bias are not used, and the layers.
        eps: Added to variances.
        activate_last: Whether a GELU follows the last layer.

    Returns:
        (H, P), and the moments of the input and of each layer's sums.
    """
    flat = [tensor for layer in layers for tensor in layer]
    out, *moments = _PairNetwork.apply(x, eps, activate_last, *flat)
    return out, [Moments(*pair) for pair in zip(moments[::2], moments[1::2], strict=True)]


class _PairNetwork(torch.autograd.Function):
    """Normalise, activate and map all pairs layer by layer, each in chunks.

    What is kept of a layer is its normalised sums n = (y - mean) / sqrt(var + eps), before gain and
    shift, (P, D). They are written in the place of the sums y while the next layer reads them.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        eps: float,
        activate_last: bool,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        layers = _layers(flat)
        kept = [x.T.contiguous()]  # (P, C)
        statistics = _Statistics(kept[0][:CHUNK])
        for part in _chunks(len(kept[0])):
            statistics.add(kept[0][part])
        moments = [statistics.moments()]
        for number, layer in enumerate(layers[1:], 1):
            y = x.new_empty(x.shape[1], len(layer.bias))  # (P, D)
            for part in _chunks(len(y)):
                n = _normalise(kept[-1][part], moments[-1], eps)  # (p, D in)
                _, h = _activate(n, layers[number - 1], with_gelu=number > 1)
                torch.addmm(layer.bias, h, layer.weight.T, out=y[part])
                if part.start == 0:
                    statistics = _Statistics(y[part])
                statistics.add(y[part])
            kept.append(y)
            moments.append(statistics.moments())
        _normalise(kept[-1], moments[-1], eps)
        _, out = _activate(kept[-1], layers[-1], with_gelu=activate_last)  # (P, H)
        flat_moments = [tensor for pair in moments for tensor in pair]
        ctx.eps, ctx.activate_last = eps, activate_last
        ctx.save_for_backward(*kept, *(m.var for m in moments), *flat)
        ctx.mark_non_differentiable(*flat_moments)
        return out.T.contiguous(), *flat_moments

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_out: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        num = len(ctx.saved_tensors) // 6  # layers: kept, variance and four parameters of each
        kept, variances, flat = (
            ctx.saved_tensors[:num],
            ctx.saved_tensors[num : 2 * num],
            ctx.saved_tensors[2 * num :],
        )
        layers, P = _layers(flat), len(kept[0])
        grads = [[torch.zeros_like(tensor) for tensor in layer] for layer in layers]
        grad = grad_out.T.contiguous()  # of the activated, then of the normalised sums (P, D)
        if ctx.activate_last:
            z, _ = _activate(kept[-1], layers[-1], with_gelu=False)
            grad = torch.ops.aten.gelu_backward(grad, z)
        _add_affine_grads(grads[-1], grad, kept[-1])
        for number in range(num - 1, 0, -1):
            layer, below = layers[number], layers[number - 1]
            # A normalisation's backward takes away what mean and variance would undo.
            gain = layer.gain * (variances[number] + ctx.eps).rsqrt()
            offset, slope = (-gain * x / P for x in (grads[number][3], grads[number][2]))
            is_input = number == 1
            grad_below = (
                grad if grad.shape == kept[number - 1].shape else torch.empty_like(kept[number - 1])
            )
            for part in _chunks(P):
                grad_y = torch.addcmul(offset, grad[part], gain)  # (p, D)
                grad_y.addcmul_(kept[number][part], slope)
                n = kept[number - 1][part]  # (p, D in)
                z, h = _activate(n, below, with_gelu=not is_input)
                grads[number][0].addmm_(grad_y.T, h)
                grad_z = grad_y @ layer.weight  # (p, D in)
                if not is_input:
                    grad_z = torch.ops.aten.gelu_backward.grad_input(
                        grad_z, z, grad_input=grad_below[part]
                    )
                _add_affine_grads(grads[number - 1], grad_z, n)
            grad = grad_below
        return None, None, None, *(tensor for layer in grads for tensor in layer)


class _Statistics:
    """Sums over all pairs, from the mean of the first ones on, so that little cancels."""

    def __init__(self, first: Tensor) -> None:
        self.origin = first.mean(0)  # (D)
        self.num = 0
        self.sum = self.square = torch.zeros_like(self.origin, dtype=torch.float64)

    def add(self, y: Tensor) -> None:
        apart = y - self.origin  # (p, D)
        self.num += len(y)
        self.sum = self.sum + apart.sum(0)
        self.square = self.square + apart.mul_(apart).sum(0)

    def moments(self) -> Moments:
        mean = self.sum / self.num
        var = (self.square / self.num - mean * mean).clamp(min=0)
        dtype = self.origin.dtype
        return Moments((self.origin + mean).to(dtype), var.to(dtype))


def _normalise(y: Tensor, moments: Moments, eps: float) -> Tensor:
    """Replace sums by normalised ones, in place."""
    scale = (moments.var + eps).rsqrt()
    return torch.addcmul(-moments.mean * scale, y, scale, out=y)


def _activate(n: Tensor, layer: Layer, *, with_gelu: bool) -> tuple[Tensor, Tensor]:
    """Apply gain and shift to normalised sums (p, D), and a GELU to these."""
    z = torch.addcmul(layer.shift, n, layer.gain)
    return z, F.gelu(z) if with_gelu else z


def _add_affine_grads(grads: list[Tensor], grad: Tensor, n: Tensor) -> None:
    """Add to the gradients of gain and shift."""
    grads[2] += (grad * n).sum(0)
    grads[3] += grad.sum(0)


def _layers(flat: Sequence[Tensor]) -> list[Layer]:
    return [Layer(*flat[i : i + 4]) for i in range(0, len(flat), 4)]


def _chunks(num: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, num, CHUNK))
