"""The dense net with a gate, in rows that stay in the cache, with a backward that keeps less.

It is contract(value · activation(gate)) with value and gate from one linear map. Done operator by
operator, a batch's hidden units leave the cache eight times in forward and backward; here a chunk
of tokens goes all the way. Only the sums before the gate are kept, the rest is computed again.
"""

# T tokens, t tokens of a chunk, D features, K hidden units

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Tokens of a chunk: with 256 hidden units a megabyte of float32.
CHUNK = 512

GateActivation = Literal["geglu", "swiglu"]


def gated_dense(
    x: Tensor,
    expand: tuple[Tensor, Tensor],
    contract: tuple[Tensor, Tensor],
    activation: GateActivation,
) -> Tensor:
    """Apply the dense net; there are no second derivatives.

    Args:
        x: Tokens (T, D).
        expand: Weight (2 K, D) and bias (2 K) of the values and, after them, of the gates.
        contract: Weight (D out, K) and bias (D out).
        activation: ``geglu`` has a GELU at the gates, ``swiglu`` a SiLU.

    Returns:
        (T, D out)
    """
    return _GatedDense.apply(x, *expand, *contract, activation)


class _GatedDense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        expand: Tensor,
        expand_bias: Tensor,
        contract: Tensor,
        contract_bias: Tensor,
        activation: GateActivation,
    ) -> Tensor:
        sums = x.new_empty(len(x), len(expand))  # (T, 2 K)
        out = x.new_empty(len(x), len(contract))
        for part in _chunks(len(x)):
            torch.addmm(expand_bias, x[part], expand.T, out=sums[part])
            value, gate = sums[part].chunk(2, -1)  # (t, K)
            hidden = _activate(gate, activation).mul_(value)
            torch.addmm(contract_bias, hidden, contract.T, out=out[part])
        ctx.save_for_backward(x, sums, expand, contract)
        ctx.activation = activation
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_out: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, sums, expand, contract = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_expand, grad_contract = torch.zeros_like(expand), torch.zeros_like(contract)
        grad_bias = expand.new_zeros(len(expand))
        room = sums.new_empty(min(CHUNK, len(x)), len(expand))
        for part in _chunks(len(x)):
            grad = grad_out[part]  # (t, D out)
            value, gate = sums[part].chunk(2, -1)  # (t, K)
            active = _activate(gate, ctx.activation)
            grad_contract.addmm_(grad.T, active * value)
            grad_hidden = grad @ contract  # (t, K)
            grad_sums = room[: len(grad)]  # (t, 2 K)
            grad_value, grad_gate = grad_sums.chunk(2, -1)
            torch.mul(grad_hidden, active, out=grad_value)
            _differentiate(grad_hidden.mul_(value), gate, ctx.activation, grad_gate)
            grad_expand.addmm_(grad_sums.T, x[part])
            grad_bias += grad_sums.sum(0)
            torch.mm(grad_sums, expand, out=grad_x[part])
        return grad_x, grad_expand, grad_bias, grad_contract, grad_out.sum(0), None


def _activate(gate: Tensor, activation: GateActivation) -> Tensor:
    return F.gelu(gate) if activation == "geglu" else F.silu(gate)


def _differentiate(grad: Tensor, gate: Tensor, activation: GateActivation, out: Tensor) -> None:
    """Write the gradient of the gates before their activation."""
    aten = torch.ops.aten
    backward = aten.gelu_backward if activation == "geglu" else aten.silu_backward
    backward.grad_input(grad, gate, grad_input=out)


def _chunks(num: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, num, CHUNK))
