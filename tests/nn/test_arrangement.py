"""Sorting and registers: where everything goes, and the way back."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.arrangement import Arrangement
from hepattn.ops.attention import Full, Registers, make_plan

LENGTHS = (7, 0, 3)
VALID = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
CASES = [
    Registers(),
    Registers(2),
    Registers(3, stride=2),
    Registers(2, stride=4),
    Registers(4, stride=1),
]


def expected_order(key: list[float], num: int, stride: int | None) -> list[str]:
    """Write the order of an event's tokens down: tokens by their number, registers by a letter."""
    tokens = [str(i) for i in sorted(range(len(key)), key=lambda i: key[i])]
    if stride is None:
        return ["abcd"[r] for r in range(num)] + tokens
    order = []
    for place, token in enumerate(tokens):
        order += ["abcd"[r] for r in range(num) if r * stride == place]
        order.append(token)
    return order + ["abcd"[r] for r in range(num) if r * stride >= len(tokens)]


@pytest.mark.parametrize("registers", CASES, ids=str)
@pytest.mark.parametrize("is_sorted", [False, True])
def test_order_is_the_written_rule(registers: Registers, is_sorted: bool) -> None:
    key = torch.rand(3, 7)
    arrangement = Arrangement(VALID, key if is_sorted else None, registers)
    x = torch.arange(7.0).expand(3, -1).unsqueeze(-1)
    names = -1 - torch.arange(float(registers.num)).unsqueeze(-1)  # -1 is a, -2 is b, ...
    found = arrangement.tokens(x, names).squeeze(-1)
    for event, length in enumerate(LENGTHS):
        keys = key[event, :length].tolist() if is_sorted else list(range(length))
        order = expected_order(keys, registers.num, registers.stride)
        numbers = [-1.0 - "abcd".index(o) if o in "abcd" else float(o) for o in order]
        assert found[event, : len(numbers)].tolist() == numbers
        assert arrangement.valid[event].tolist() == [
            place < len(numbers) for place in range(7 + registers.num)
        ]
    assert_close(arrangement.restore(arrangement.tokens(x, names)), x)


@pytest.mark.parametrize("registers", CASES, ids=str)
def test_places_agree_with_the_plan(registers: Registers) -> None:
    arrangement = Arrangement(VALID, None, registers)
    plan = make_plan(Full(), arrangement.valid, registers=registers)
    x = arrangement.tokens(torch.arange(7.0).expand(3, -1).unsqueeze(-1)).squeeze(-1)
    names = -torch.ones(registers.num, 1)
    is_register = arrangement.tokens(torch.zeros(3, 7, 1), names).squeeze(-1) < 0
    assert_close(plan.keys.is_register.expand_as(is_register), is_register)
    real = arrangement.valid & ~is_register
    assert_close(plan.keys.place.expand_as(is_register)[real], x[real].long())


@pytest.mark.parametrize("registers", CASES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2), (1, 1)])
def test_pairs_follow_their_tokens(registers: Registers, shape: tuple[int, int]) -> None:
    arrangement = Arrangement(VALID, torch.rand(3, 7), registers)
    pairs = torch.randn(*shape, 7, 7) + 10
    slot = arrangement.tokens(torch.arange(1.0, 8.0).expand(3, -1).unsqueeze(-1)).squeeze(-1).long()
    found = arrangement.pairs(pairs)
    for event in range(3):
        for i, a in enumerate(slot[event]):
            for j, b in enumerate(slot[event]):
                both = a > 0 and b > 0  # registers hold zero
                mine = pairs[min(event, shape[0] - 1), :, a - 1, b - 1]
                assert_close(found[event, :, i, j], mine if both else Tensor([0.0] * shape[1]))


def test_without_a_key_or_registers_nothing_moves() -> None:
    arrangement = Arrangement(VALID, None, Registers())
    x, pairs = torch.randn(3, 7, 2), torch.randn(1, 1, 7, 7)
    assert arrangement.tokens(x) is x
    assert arrangement.pairs(pairs) is pairs
    assert_close(arrangement.restore(x), x)
