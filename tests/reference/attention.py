"""Attention written straight from its definition, one query at a time, in float64."""

# B sequences, H heads, M queries, N keys, E head features

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hepattn.ops.attention import (
    Full,
    Pattern,
    Plan,
    Registers,
    attention,
    attention_weights,
    make_packed_plan,
    make_plan,
)

NO_REGISTERS = Registers()


@dataclass
class Case:
    """One batch to attend over, with what was asked for.

    Events are the rows of a padded batch or, if ``packed``, parts of one sequence.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor
    pattern: Pattern
    lengths: tuple[int, ...]
    query_lengths: tuple[int, ...] | None = None
    bias: Tensor | None = None
    offset_bias: Tensor | None = None
    scale: float | None = None
    registers: Registers = field(default_factory=Registers)
    centres: Tensor | None = None
    mask: Tensor | None = None
    packed: bool = False

    @property
    def key_valid(self) -> Tensor:
        return self._valid(self.lengths, self.k.shape[2])

    @property
    def query_valid(self) -> Tensor:
        return self._valid(self.query_lengths or self.lengths, self.q.shape[2])

    def _valid(self, lengths: Sequence[int], num_tokens: int) -> Tensor:
        return prefix_valid([sum(lengths)] if self.packed else lengths, num_tokens)

    def plan(self) -> Plan:
        options = {"registers": self.registers, "centres": self.centres}
        if self.packed:
            plan = make_packed_plan(
                self.pattern,
                self.lengths,
                self.query_lengths,
                num_tokens=self.k.shape[2],
                num_queries=None if self.query_lengths is None else self.q.shape[2],
                **options,
            )
        else:
            is_cross = self.query_lengths is not None
            query_valid = self.query_valid if is_cross else None
            plan = make_plan(self.pattern, self.key_valid, query_valid, **options)
        return plan if self.mask is None else plan.restrict(self.mask)

    def inputs(self) -> dict[str, Tensor]:
        """Fresh differentiable leaves: q, k, v and the biases that there are."""
        names = ("q", "k", "v", "bias", "offset_bias")
        tensors = {name: getattr(self, name) for name in names}
        return {
            name: x.detach().clone().requires_grad_()
            for name, x in tensors.items()
            if x is not None
        }

    def expected(self) -> dict[str, Tensor]:
        """The output and every gradient, in float64, by name."""
        inputs = {name: x.detach().double().requires_grad_() for name, x in self.inputs().items()}
        v = inputs["v"].repeat_interleave(self.q.shape[1] // self.v.shape[1], 1)
        out = self.loop_weights(inputs) @ v
        if out.requires_grad:
            out.backward(self.grad_out.double())
        return {"out": out.detach(), **_gradients(inputs)}

    def loop_weights(self, inputs: dict[str, Tensor] | None = None) -> Tensor:
        """Weights (B, H, M, N) in float64, differentiable."""
        inputs = self.inputs() if inputs is None else inputs
        q, k = (inputs[name].double() for name in "qk")
        B, H, M, E = q.shape
        N, group = k.shape[2], H // k.shape[1]
        scale = 1 / E**0.5 if self.scale is None else self.scale
        weights = torch.zeros(B, H, M, N, dtype=torch.float64)
        for b, i, keys, offsets in self.sights():
            if not keys:
                continue
            for h in range(H):
                score = (k[b, h // group, keys] * q[b, h, i]).sum(-1) * scale
                if "bias" in inputs:
                    score = score + inputs["bias"].double().expand(B, H, M, N)[b, h, i, keys]
                if "offset_bias" in inputs:
                    score = score + _offset_bias(inputs["offset_bias"].double(), h, offsets)
                place = tuple(torch.tensor(x) for x in ([b], [h], [i]))
                row = torch.softmax(score, 0)[None]
                weights = weights.index_put((*place, torch.tensor(keys)), row[0])
        return weights

    def sights(self) -> Iterator[tuple[int, int, list[int], list[int | None]]]:
        """Each real query, the keys that it sees, and their offsets (None with a register)."""
        is_cross = self.query_lengths is not None
        key_start = query_start = 0
        for event, n in enumerate(self.lengths):
            m = self.query_lengths[event] if is_cross else n
            b = 0 if self.packed else event
            key_places = token_places(n, self.registers)
            num_keys = n - self.registers.num
            for i in range(m):
                if not is_cross:
                    centre = key_places[i]
                elif self.centres is None:
                    centre = i * num_keys // m
                else:
                    centre = int(self.centres[b, query_start + i])
                keys, offsets = [], []
                for j in range(n):
                    offset = None
                    if centre is not None and key_places[j] is not None:
                        offset = key_places[j] - centre
                        if self.pattern.wrap:
                            offset = cyclic(offset, num_keys)
                        is_near = isinstance(self.pattern, Full) or (
                            abs(offset) <= self.pattern.size // 2
                        )
                        if not is_near:
                            continue
                    token = key_start + j
                    if self.mask is None or self.mask[b, query_start + i, token]:
                        keys.append(token)
                        offsets.append(offset)
                yield b, query_start + i, keys, offsets
            if self.packed:
                key_start += n
                query_start += m


def token_places(length: int, registers: Registers) -> list[int | None]:
    """Places of an event's tokens, registers not counted and None themselves."""
    real = list(range(length - registers.num))
    if registers.stride is None:
        return [None] * registers.num + real
    places: list[int | None] = []
    left = registers.num
    for place in real:
        if left and place % registers.stride == 0:
            places.append(None)
            left -= 1
        places.append(place)
    return places + [None] * left


def cyclic(offset: int, n: int) -> int:
    """The smallest offset that is the same modulo n; n / 2 rather than -n / 2."""
    return min((offset % n, offset % n - n), key=lambda d: (abs(d), -d))


def _offset_bias(table: Tensor, h: int, offsets: list[int | None]) -> Tensor:
    reach = table.shape[1] // 2
    row = table[h if len(table) > 1 else 0]
    return torch.stack([
        row.new_zeros(()) if d is None else row[max(-reach, min(reach, d)) + reach]
        for d in offsets
    ])  # fmt: skip


def _gradients(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in inputs.items()}


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
    offset_bias_shape: tuple[int, int] | None = None,
    scale: float | None = None,
    registers: Registers = NO_REGISTERS,
    centres: bool = False,
    mask: bool = False,
    packed: bool = False,
    extra: int = 0,
    seed: int = 0,
) -> Case:
    """Draw a random case with ``extra`` padded tokens beyond the longest event, or the last one.

    ``lengths`` count registers; centres and the mask are drawn if asked for.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def width(lengths: Sequence[int]) -> int:
        return (sum(lengths) if packed else max(lengths)) + extra

    B, N = 1 if packed else len(lengths), width(lengths)
    M = N if query_lengths is None else width(query_lengths)
    num_key_heads = num_heads if num_key_heads is None else num_key_heads
    case = Case(
        q=draw(B, num_heads, M, dim),
        k=draw(B, num_key_heads, N, dim),
        v=draw(B, num_key_heads, N, dim),
        grad_out=draw(B, num_heads, M, dim),
        pattern=pattern,
        lengths=tuple(lengths),
        query_lengths=None if query_lengths is None else tuple(query_lengths),
        bias=None if bias_shape is None else draw(*bias_shape, M, N),
        offset_bias=None if offset_bias_shape is None else draw(*offset_bias_shape),
        scale=scale,
        registers=registers,
        packed=packed,
    )
    if centres:
        case.centres = torch.randint(0, max(lengths) + 1, (B, M), generator=generator)
    if mask:
        case.mask = torch.rand(B, M, N, generator=generator) < 0.6
    return case


def run_case(case: Case, backend: str) -> dict[str, Tensor]:
    """The output and every gradient by the backend under test, by name."""
    inputs = case.inputs()
    out = attention(**inputs, plan=case.plan(), scale=case.scale, backend=backend)
    out.backward(case.grad_out)
    # Over no tokens at all torch's attention has no gradient for a bias.
    return {"out": out.detach(), **_gradients(inputs)}


def run_weights(case: Case) -> Tensor:
    """The weights for inspection."""
    biases = {"bias": case.bias, "offset_bias": case.offset_bias}
    return attention_weights(case.q, case.k, plan=case.plan(), scale=case.scale, **biases)


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
