"""Numbers of eight bits: rounding weights and activations, and the product of both.

A weight is ``scale * integer`` with an integer from -127 to 127 and a scale for each output. An
activation is ``scale * (integer - zero)`` with an integer from 0 to 127: seven bits, because the
byte products of processors without VNNI add two neighbours in 16 bits, which 2 * 127 * 127 fits
and 2 * 255 * 127 does not; eight bits would be wrong there without a word.
"""

# P rows (tokens), K inputs, D outputs

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

WEIGHT_LEVELS = 127
ACTIVATION_LEVELS = 127
MIDDLE = 64  # the zero of activations whose range is symmetric
BLOCK = 2**17  # numbers that are rounded at once: half a megabyte
FLOAT_INTEGERS = 2**24  # up to here float32 holds every integer
TINY = 1e-30


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to integers, each output with its own scale.

    Args:
        weight: Floating weight (D, K).

    Returns:
        Integers from -127 to 127 (D, K) as int8, scales (D); the nearest to weight / scale.
    """
    scale = (weight.abs().amax(1) / WEIGHT_LEVELS).clamp(min=TINY)  # (D)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def activation_range(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Make the scale and the zero of activations between two bounds.

    Args:
        low: Lowest activation, a scalar.
        high: Highest activation, a scalar.

    Returns:
        Scale, and the integer that means zero, as floating scalars; zero is always exact.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / ACTIVATION_LEVELS).clamp(min=TINY)
    return scale, (-low / scale).round()


def quantise_activation(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Round activations to integers of a fixed range; those outside become its ends.

    Args:
        x: Activations of any shape.
        scale: Step between two integers, a scalar.
        zero: Integer that means zero, a scalar.

    Returns:
        Integers from 0 to 127 as uint8, halves rounded up.
    """
    half_up, inverse = zero + 0.5, 1 / scale
    return _truncate(
        x, lambda part, _: torch.addcmul(half_up, part, inverse).clamp_(0, ACTIVATION_LEVELS)
    )


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round activations to integers, each row with a symmetric range of its own.

    A row's answer then depends on no other row, so on no other event of a batch.

    Args:
        x: Activations (P, K).

    Returns:
        Integers from 1 to 127 as uint8 (P, K), with 64 for zero, and scales (P, 1).
    """
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    peak = torch.maximum(-low, high).clamp(min=TINY)  # (P, 1)
    num_steps = ACTIVATION_LEVELS // 2
    inverse = num_steps / peak
    half_up = torch.full((), MIDDLE + 0.5, dtype=x.dtype, device=x.device)
    rows = _truncate(x, lambda part, block: torch.addcmul(half_up, part, inverse[block]))
    return rows, peak / num_steps


def _truncate(x: Tensor, make: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """Round down what a function makes of rows, all positive, to uint8.

    Block by block, whose numbers stay in the cache; the compiler needs no blocks.
    """
    num_rows = max(1, BLOCK // max(1, x[:1].numel())) if x.ndim else 1
    if torch.compiler.is_compiling() or x.ndim < 2 or len(x) <= num_rows:
        return make(x, slice(None)).to(torch.uint8)
    out = torch.empty_like(x, dtype=torch.uint8)
    for start in range(0, len(x), num_rows):
        block = slice(start, start + num_rows)
        out[block] = make(x[block], block)
    return out


def exact_product(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply integers with ordinary floating products that hold every sum exactly.

    Args:
        x: Integers (P, K).
        scale: Step of the activations, a scalar.
        zero: Integer that means zero, a scalar.
        weight: Integers (D, K).
        weight_scale: Scales (D).
        bias: Added at the end (D).

    Returns:
        (P, D) in float32.
    """
    largest = weight.shape[1] * ACTIVATION_LEVELS * WEIGHT_LEVELS
    dtype = torch.float32 if largest <= FLOAT_INTEGERS else torch.float64
    total = F.linear(x.to(dtype) - zero.to(dtype), weight.to(dtype)).float()  # (P, D)
    out = total * (scale * weight_scale)
    return out if bias is None else out + bias


def pack(weight: Tensor) -> Tensor | None:
    """Arrange integers (D, K) as oneDNN's product wants them; None where there is no such."""
    if weight.device.type != "cpu" or not has_onednn():
        return None
    return torch.ops.onednn.qlinear_prepack(weight, None)


def packed_product(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply integers with oneDNN, which `pack` arranged; as `exact_product` otherwise.

    Args:
        x: Integers (P, K) as uint8.
        scale: Step of the activations, a scalar.
        zero: Integer that means zero, a scalar.
        packed: Integers (D, K), packed.
        weight_scale: Scales (D).
        bias: Added at the end (D).

    Returns:
        (P, D) in float32.
    """
    if torch.compiler.is_compiling():
        return _opaque_product(x, scale, zero, packed, weight_scale, bias)
    if not len(x):
        return x.new_empty(0, len(weight_scale), dtype=torch.float32)
    return torch.ops.onednn.qlinear_pointwise(
        x,
        float(scale),
        int(zero),
        packed,
        weight_scale,
        torch.zeros(len(weight_scale), dtype=torch.int64),
        bias,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )


# The compiler takes scales and packed weights apart, which fails; so it must not look inside.
@torch.library.custom_op("hepattn::int8_product", mutates_args=())
def _opaque_product(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    return packed_product(x, scale, zero, packed, weight_scale, bias)


@_opaque_product.register_fake
def _(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    packed: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
) -> Tensor:
    return x.new_empty(len(x), len(weight_scale), dtype=torch.float32)


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN's product of bytes here, and it is right for the largest sums."""
    weight = torch.full((32, 64), WEIGHT_LEVELS, dtype=torch.int8)
    x = torch.full((32, 64), ACTIVATION_LEVELS, dtype=torch.uint8)
    one, none = torch.ones(()), torch.zeros(())
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
        found = packed_product(x, one, none, packed, torch.ones(32))
    except (AttributeError, NotImplementedError, RuntimeError):  # not in every build of torch
        return False
    return torch.equal(found, exact_product(x, one, none, weight, torch.ones(32)))
