"""The dense net in chunks has the answers and gradients of its formula."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.ops.gated_dense import CHUNK, gated_dense


@pytest.mark.parametrize("activation", ["geglu", "swiglu"])
@pytest.mark.parametrize("num_tokens", [0, 1, CHUNK, 2 * CHUNK + 3])
def test_chunks_are_the_formula_forward_and_backward(activation: str, num_tokens: int) -> None:
    shapes = ((num_tokens, 6), (10, 6), (10,), (4, 5), (4,))
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, expand, expand_bias, contract, contract_bias = leaves
    out = gated_dense(x, (expand, expand_bias), (contract, contract_bias), activation)
    value, gate = F.linear(x, expand, expand_bias).chunk(2, -1)
    hidden = value * (F.gelu(gate) if activation == "geglu" else F.silu(gate))
    expected = F.linear(hidden, contract, contract_bias)
    assert_close(out, expected)
    grad = torch.randn_like(out)
    assert_close(
        torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    )


def test_gradients_are_those_of_differences() -> None:
    shapes = ((3, 2), (4, 2), (4,), (2, 2), (2,))
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    torch.autograd.gradcheck(lambda x, *w: gated_dense(x, w[:2], w[2:], "geglu"), leaves)
