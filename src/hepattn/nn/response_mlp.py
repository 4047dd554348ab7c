"""The channel network of a ConvNeXt V2 block, worked through event by event on the CPU.

Linear map, GELU, global response norm, linear map. The norm is a factor for each event and channel
and a bias, so that it goes into the second map, ``W diag(f) a``, and costs no pass of its own over
the hidden units. These are never all in memory: a few events at a time fit the cache, and
backwards they are computed again. Masked places are left out before the first map.
"""

# B events, P places, n visible places, C channels, D outputs, K hidden units, G channel norms

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6  # of arXiv:2301.00808
HIDDEN_VALUES = 2**19  # hidden units of the events that are worked on together, which a cache holds


def relative_response(x: Tensor) -> Tensor:
    """Compare the channels of each event: L2 norms over all places, divided by their mean.

    Args:
        x: Features of the places (B, ..., C).

    Returns:
        (B, 1, ..., C), in float32 at least.
    """
    places = tuple(range(1, x.ndim - 1))
    squares = x.to(torch.promote_types(x.dtype, torch.float32)).square().sum(places, keepdim=True)
    positive = squares > 0  # the square root has no slope at zero
    norms = torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
    return norms / (norms.mean(-1, keepdim=True) + EPS)


def can_fuse(x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Tell whether `response_mlp` is for such input: in full precision on the CPU."""
    full = (torch.float32, torch.float64)
    return (
        x.device.type == "cpu"
        and x.dtype in full
        and all(parameter.dtype == x.dtype for parameter in parameters)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
    )


def response_mlp(
    x: Tensor,
    visible: Tensor | None,
    weight_in: Tensor,
    bias_in: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
) -> Tensor:
    """Compute linear map, GELU, global response norm and linear map at each place.

    Args:
        x: Features of the places (B, P, C).
        visible: True for visible places (B, P); None if all are.
        weight_in: Weight (K, C) of the first map.
        bias_in: Its bias (K).
        gamma: Weight of the norm (K).
        beta: Its bias (K).
        weight_out: Weight (D, K) of the second map.
        bias_out: Its bias (D).

    Returns:
        (B, P, D); zero at masked places.
    """
    return _response_mlp(x, visible, weight_in, bias_in, gamma, beta, weight_out, bias_out)[0]


@torch.library.custom_op("hepattn::response_mlp", mutates_args=())
def _response_mlp(
    x: Tensor,
    visible: Tensor | None,
    weight_in: Tensor,
    bias_in: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
) -> tuple[Tensor, Tensor]:
    """The output (B, P, D), and the norms of the hidden channels (B, K)."""
    out = x.new_zeros(*x.shape[:2], len(bias_out))
    norms = x.new_zeros(len(x), len(bias_in))
    bias = torch.addmv(bias_out, weight_out, beta)
    for part in _parts(visible, x.shape, len(bias_in)):
        _, hidden = _hidden(part, part.take(x), weight_in, bias_in)
        norm = hidden.square().sum(1).sqrt_()  # (b, K)
        norms[part.events] = norm
        scaled = weight_out * _factor(norm, gamma).unsqueeze(1)  # (b, D, K)
        part.put(out, torch.baddbmm(bias, hidden, scaled.mT))
    return out, norms


@torch.library.custom_op("hepattn::response_mlp_backward", mutates_args=())
def _response_mlp_backward(
    grad: Tensor,
    x: Tensor,
    visible: Tensor | None,
    weight_in: Tensor,
    bias_in: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight_out: Tensor,
    norms: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x = x.new_zeros(x.shape)  # in rows, whatever the strides of x
    grad_weight_in, grad_bias_in = torch.zeros_like(weight_in), torch.zeros_like(bias_in)
    mean = norms.mean(-1, keepdim=True) + EPS  # (B, 1)
    factor = _factor(norms, gamma)  # (B, K)
    grad_weight_out, grad_gamma = torch.zeros_like(weight_out), torch.zeros_like(gamma)
    grad_bias_out = torch.zeros_like(weight_out[:, 0])
    for part in _parts(visible, x.shape, len(bias_in)):
        here = part.take(x)  # (b, n, C)
        before, hidden = _hidden(part, here, weight_in, bias_in)  # (b, n, K) each
        grad_out = part.take(grad)  # (b, n, D)
        grad_bias_out += grad_out.sum((0, 1))
        grad_scaled = grad_out.mT @ hidden  # (b, D, K)
        scale = factor[part.events].unsqueeze(1)  # (b, 1, K)
        grad_weight_out += (grad_scaled * scale).sum(0)
        grad_factor = (grad_scaled * weight_out).sum(1)  # (b, K)
        norm, average = norms[part.events], mean[part.events]
        grad_gamma += (grad_factor * norm / average).sum(0)
        grad_ratio = grad_factor * gamma
        slope = (grad_ratio * norm).sum(-1, keepdim=True) / (norm.shape[1] * average)
        grad_norm = (grad_ratio - slope) / average  # (b, K)
        # The slope of a norm is the vector over its length; that of no vector is zero.
        direction = torch.where(norm > 0, grad_norm / norm, 0.0).unsqueeze(1)
        grad_hidden = hidden.mul_(direction).baddbmm_(grad_out, weight_out * scale)
        grad_before = torch.ops.aten.gelu_backward(grad_hidden, before).flatten(0, 1)
        part.put(grad_x, (grad_before @ weight_in).view(here.shape))
        grad_weight_in.addmm_(grad_before.T, here.flatten(0, 1))
        grad_bias_in += grad_before.sum(0)
    grad_beta = grad_bias_out @ weight_out
    grad_weight_out += torch.outer(grad_bias_out, beta)
    return (
        grad_x,
        grad_weight_in,
        grad_bias_in,
        grad_gamma,
        grad_beta,
        grad_weight_out,
        grad_bias_out,
    )


def _hidden(part: "_Part", x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden units before and after GELU, (b, n, K) each; the latter zero at padding."""
    before = torch.addmm(bias, x.flatten(0, 1), weight.T).view(*x.shape[:2], len(bias))
    return before, part.clear_padding(F.gelu(before))


def _factor(norms: Tensor, gamma: Tensor) -> Tensor:
    """What the response norm multiplies each channel of an event with, (b, K)."""
    return 1 + gamma * norms / (norms.mean(-1, keepdim=True) + EPS)


class _Part:
    """A few events, and the visible places of each with padding behind them; there are some.

    Args:
        events: Which events.
        places: How many places an event has.
        visible: True for the visible places of these events (b, P), if any is masked.
    """

    def __init__(self, events: slice, places: int, visible: Tensor | None) -> None:
        self.events = events
        self.index = None
        self.is_padded = False
        if visible is None:
            return
        event, place = visible.nonzero().unbind(1)  # (T)
        self.counts = visible.sum(1).tolist()
        most = max(self.counts)
        column = (visible.cumsum(1) - 1)[event, place]
        self.index = event * places + place  # (T), among the places of all these events
        self.row = event * most + column  # (T), where they stand without masked places
        self.shape = (len(visible), most)
        self.is_padded = min(self.counts) < most

    def take(self, x: Tensor) -> Tensor:
        """The visible places (b, n, C) of x (B, P, C); zero at padding."""
        x = x[self.events]
        if self.index is None:
            return x
        found = x.flatten(0, 1).index_select(0, self.index)  # (T, C)
        if not self.is_padded:
            return found.view(*self.shape, -1)
        rows = found.new_zeros(self.shape[0] * self.shape[1], x.shape[-1])
        return rows.index_copy_(0, self.row, found).view(*self.shape, -1)

    def clear_padding(self, x: Tensor) -> Tensor:
        """Put zero at the padding of x (b, n, K) in place."""
        if self.is_padded:
            for event, count in zip(x, self.counts, strict=True):
                event[count:] = 0.0
        return x

    def put(self, out: Tensor, x: Tensor) -> None:
        """Write the visible places (b, n, C) to where they belong in out (B, P, C)."""
        out = out[self.events]
        if self.index is None:
            out.copy_(x)
            return
        rows = x.flatten(0, 1)
        if self.is_padded:
            rows = rows.index_select(0, self.row)
        out.view(-1, out.shape[-1]).index_copy_(0, self.index, rows)


def _parts(visible: Tensor | None, shape: torch.Size, num_hidden: int) -> Iterator[_Part]:
    num_events, num_places, _ = shape
    size = max(1, HIDDEN_VALUES // max(1, num_places * num_hidden))
    for start in range(0, num_events, size):
        events = slice(start, start + size)
        here = None if visible is None else visible[events]
        if here is None or here.all():
            yield _Part(events, num_places, None)
        elif here.any():
            yield _Part(events, num_places, here)


@_response_mlp.register_fake
def _(
    x: Tensor,
    visible: Tensor | None,
    weight_in: Tensor,
    bias_in: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight_out: Tensor,
    bias_out: Tensor,
) -> tuple[Tensor, Tensor]:
    out = x.new_empty(*x.shape[:2], bias_out.shape[0])
    return out, x.new_empty(x.shape[0], bias_in.shape[0])


@_response_mlp_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    visible: Tensor | None,
    weight_in: Tensor,
    bias_in: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight_out: Tensor,
    norms: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = (x, weight_in, bias_in, gamma, beta, weight_out, weight_out[:, 0])
    return tuple(x.new_empty(tensor.shape) for tensor in like)


def _keep(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor | None, ...],
    output: tuple[Tensor, Tensor],
) -> None:
    x, visible, weight_in, bias_in, gamma, beta, weight_out, _ = inputs
    norms = output[1]
    ctx.save_for_backward(x, visible, weight_in, bias_in, gamma, beta, weight_out, norms)
    ctx.mark_non_differentiable(norms)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    grad_x, *others = _response_mlp_backward(grad, *ctx.saved_tensors)
    return grad_x, None, *others


_response_mlp.register_autograd(_differentiate, setup_context=_keep)
