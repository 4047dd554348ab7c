"""Attention written straight from its definition, one query at a time, in float64."""

# B events, H heads, M queries, N keys, E head features

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hepattn.ops.attention import Full, Pattern, Window, attention, make_plan

# A later backend is added here; every property is then asked of it as well.
BACKENDS = ("sdpa", "local")


def visible(pattern: Pattern, i: int, j: int, n: int) -> bool:
    """Tell whether real token i sees real token j in an event of n real tokens.

    All three count registers, which come first.
    """
    if isinstance(pattern, Full):
        return True
    assert isinstance(pattern, Window)
    registers = pattern.num_registers
    if i < registers or j < registers:
        return True
    distance = abs(i - j)
    if pattern.wrap:
        distance = min(distance, n - registers - distance)
    return distance <= pattern.size // 2


def loop_weights(
    q: Tensor,
    k: Tensor,
    *,
    pattern: Pattern,
    lengths: Sequence[int],
    query_lengths: Sequence[int] | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Weights (B, H, M, N) of queries (B, H, M, E) on keys (B, Hk, N, E), differentiable."""
    B, H, M, E = q.shape
    N = k.shape[2]
    q, k = q.double(), k.double()
    group = H // k.shape[1]
    scale = 1 / E**0.5 if scale is None else scale
    query_lengths = lengths if query_lengths is None else query_lengths
    rows = []
    for b in range(B):
        for h in range(H):
            for i in range(M):
                row = torch.zeros(N, dtype=torch.float64)
                seen = [
                    j
                    for j in range(lengths[b])
                    if i < query_lengths[b] and visible(pattern, i, j, lengths[b])
                ]
                if seen:
                    score = (k[b, h // group, seen] * q[b, h, i]).sum(-1) * scale
                    if bias is not None:
                        score = score + bias.double().expand(B, H, M, N)[b, h, i, seen]
                    row = row.index_put((torch.tensor(seen),), torch.softmax(score, 0))
                rows.append(row)
    return torch.stack(rows).reshape(B, H, M, N) if rows else q.new_zeros((B, H, M, N))


def loop_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    pattern: Pattern,
    lengths: Sequence[int],
    query_lengths: Sequence[int] | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Outputs (B, H, M, E), differentiable."""
    weights = loop_weights(
        q,
        k,
        pattern=pattern,
        lengths=lengths,
        query_lengths=query_lengths,
        bias=bias,
        scale=scale,
    )
    group = q.shape[1] // k.shape[1]
    heads = [
        torch.stack([weights[b, h] @ v[b, h // group].double() for h in range(q.shape[1])])
        for b in range(q.shape[0])
    ]
    return torch.stack(heads)


@dataclass
class Case:
    """One batch to attend over, with what was asked for."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor
    pattern: Pattern
    lengths: tuple[int, ...]
    query_lengths: tuple[int, ...] | None = None
    bias: Tensor | None = None
    scale: float | None = None

    @property
    def key_valid(self) -> Tensor:
        return prefix_valid(self.lengths, self.k.shape[2])

    @property
    def query_valid(self) -> Tensor | None:
        if self.query_lengths is None:
            return None
        return prefix_valid(self.query_lengths, self.q.shape[2])

    def inputs(self) -> dict[str, Tensor]:
        """Fresh differentiable leaves: q, k, v and, if there is one, bias."""
        tensors = {"q": self.q, "k": self.k, "v": self.v}
        if self.bias is not None:
            tensors["bias"] = self.bias
        return {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}

    def expected(self) -> dict[str, Tensor]:
        """The output and every gradient, in float64, by name."""
        inputs = {name: x.detach().double().requires_grad_() for name, x in self.inputs().items()}
        out = loop_attention(
            **inputs,
            pattern=self.pattern,
            lengths=self.lengths,
            query_lengths=self.query_lengths,
            scale=self.scale,
        )
        if out.requires_grad:
            out.backward(self.grad_out.double())
        grads = {
            name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in inputs.items()
        }
        return {"out": out.detach(), **grads}


def prefix_valid(lengths: Sequence[int], num_tokens: int) -> Tensor:
    """True for the first ``lengths[b]`` of ``num_tokens`` (B, num_tokens)."""
    return torch.arange(num_tokens)[None, :] < torch.tensor(list(lengths))[:, None]


def make_case(
    pattern: Pattern,
    lengths: Sequence[int],
    *,
    query_lengths: Sequence[int] | None = None,
    num_heads: int = 2,
    num_key_heads: int | None = None,
    dim: int = 4,
    dtype: torch.dtype = torch.float64,
    bias_shape: tuple[int, int] | None = None,
    scale: float | None = None,
    extra: int = 0,
    seed: int = 0,
) -> Case:
    """Draw a random case whose padded length is ``extra`` above the longest event's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    B, N = len(lengths), max(lengths) + extra
    M = N if query_lengths is None else max(query_lengths) + extra
    num_key_heads = num_heads if num_key_heads is None else num_key_heads
    return Case(
        q=draw(B, num_heads, M, dim),
        k=draw(B, num_key_heads, N, dim),
        v=draw(B, num_key_heads, N, dim),
        grad_out=draw(B, num_heads, M, dim),
        pattern=pattern,
        lengths=tuple(lengths),
        query_lengths=None if query_lengths is None else tuple(query_lengths),
        bias=None if bias_shape is None else draw(*bias_shape, M, N),
        scale=scale,
    )


def run_case(case: Case, backend: str) -> dict[str, Tensor]:
    """The output and every gradient by the backend under test, by name."""
    inputs = case.inputs()
    plan = make_plan(case.pattern, case.key_valid, case.query_valid)
    out = attention(**inputs, plan=plan, scale=case.scale, backend=backend)
    out.backward(case.grad_out)
    # Over no tokens at all torch's attention has no gradient for a bias.
    grads = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in inputs.items()}
    return {"out": out.detach(), **grads}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, atol: float) -> None:
    """Compare outputs and gradients by name, in float64, relative to the largest magnitude."""
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        size = max(1.0, x.abs().max().item()) if x.numel() else 1.0
        torch.testing.assert_close(
            found[name].double(),
            x.double(),
            rtol=0.0,
            atol=atol * size,
            msg=lambda message, name=name: f"{name}: {message}",
        )
