"""Normalisation over all objects of an event at once."""

# B events, N objects, D features, T real objects of all events

import torch
from torch import Tensor, nn

from hepattn.nn.packing import Packing, make_packing


class SetNorm(nn.Module):
    """Normalise an event by the mean and the spread of all features of all its objects.

    A layer norm takes both from each object alone, so that objects which differ by a factor look
    alike afterwards; here they stay different (arXiv:2206.11925). Padded slots do not count.
    Weights and biases are those of the features.

    Args:
        dim: Number of features D.
        eps: Added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, valid: Tensor, packing: Packing | None = None) -> Tensor:
        """Normalise.

        Args:
            x: Objects (B, N, D), or packed ones (T, D).
            valid: True for real objects (B, N).
            packing: Where packed objects stand.

        Returns:
            Like ``x``; zero at padded slots.
        """
        if torch.compiler.is_exporting():
            if packing is None:
                return self._normalise_padded(x, valid)
            return self._normalise_padded(x.view(*valid.shape, -1), valid).flatten(0, 1)
        if packing is None:
            packing = make_packing(valid)
            return packing.unpack(self._normalise(packing.pack(x), valid.sum(1)))
        return self._normalise(x, valid.sum(1))

    def extra_repr(self) -> str:
        """The number of features, for `print`."""
        return str(len(self.weight))

    def _normalise(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Normalise real objects (T, D), so many (B,) of each event after those of the last."""
        enlarged = x.to(torch.promote_types(x.dtype, torch.float32))
        y, *_ = _set_norm(enlarged, lengths, self.weight, self.bias, self.eps)
        return y.to(x.dtype)

    def _normalise_padded(self, x: Tensor, valid: Tensor) -> Tensor:
        """The same for padded objects (B, N, D), in shapes that do not depend on the data."""
        real = valid.unsqueeze(-1)  # (B, N, 1)
        num = (real.sum(1, keepdim=True) * x.shape[-1]).clamp(min=1)  # (B, 1, 1)
        values = torch.where(real, x, 0.0)
        mean = values.sum((1, 2), keepdim=True) / num
        values = torch.where(real, values - mean, 0.0)
        variance = values.square().sum((1, 2), keepdim=True) / num
        y = values * (variance + self.eps).rsqrt() * self.weight + self.bias
        return torch.where(real, y, 0.0)


# Written step by step, the formula and its gradient are a dozen passes each over fresh memory,
# which makes them three to five times slower on the CPU.
@torch.library.custom_op("hepattn::set_norm", mutates_args=())
def _set_norm(
    x: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise (T, D); also before weight and bias, one over the spread and the event (T,)."""
    index = torch.arange(len(lengths), device=x.device)
    event = index.repeat_interleave(lengths, output_size=len(x))  # (T,)
    values = x - _mean(x.sum(1), event, lengths, x.shape[1]).unsqueeze(1)
    squares = torch.linalg.vector_norm(values, dim=1).square()
    scale = (_mean(squares, event, lengths, x.shape[1]) + eps).rsqrt()  # (T,)
    values.mul_(scale.unsqueeze(1))
    return torch.addcmul(bias, values, weight), values, scale, event


@torch.library.custom_op("hepattn::set_norm_backward", mutates_args=())
def _set_norm_backward(
    grad: Tensor, values: Tensor, scale: Tensor, event: Tensor, lengths: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dim = values.shape[1]
    product = grad * values
    grad_weight, grad_bias = product.sum(0), grad.sum(0)
    with torch.autocast(grad.device.type, enabled=False):
        mean = _mean(grad @ weight, event, lengths, dim)  # (T,)
        slope = _mean(product @ weight, event, lengths, dim)  # (T,)
    grad = torch.mul(grad, weight, out=product).sub_(mean.unsqueeze(1))
    grad.addcmul_(values, slope.unsqueeze(1), value=-1).mul_(scale.unsqueeze(1))
    return grad, grad_weight, grad_bias


def _mean(sums: Tensor, event: Tensor, lengths: Tensor, dim: int) -> Tensor:
    """Turn the sums over features of each object into means over its event, both (T,)."""
    totals = sums.new_zeros(len(lengths)).index_add_(0, event, sums)  # (B,)
    return (totals / (lengths * dim).clamp(min=1))[event]


@_set_norm.register_fake
def _(
    x: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    event = lengths.new_empty(x.shape[0])
    return torch.empty_like(x), torch.empty_like(x), x.new_empty(x.shape[0]), event


@_set_norm_backward.register_fake
def _(
    grad: Tensor, values: Tensor, scale: Tensor, event: Tensor, lengths: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(values), torch.empty_like(weight), torch.empty_like(weight)


def _keep(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, float],
    output: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    _, lengths, weight, _, _ = inputs
    _, values, scale, event = output
    ctx.save_for_backward(values, scale, event, lengths, weight)
    ctx.mark_non_differentiable(values, scale, event)
    ctx.set_materialize_grads(False)  # of these three, all zero and as large as x


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    grad_x, grad_weight, grad_bias = _set_norm_backward(grad, *ctx.saved_tensors)
    return grad_x, None, grad_weight, grad_bias, None


_set_norm.register_autograd(_differentiate, setup_context=_keep)
