"""Pooling looks at the real objects of an event alone."""

# B events, N objects, D features, K kinds of objects

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.pooling import SeedPooling, kind_means, masked_mean
from hepattn.ops.attention import Plan

SIZES = (3, 1, 2)


def draw(counts: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Objects (B, N, 4), NaN at padded slots, and which are real (B, N), by event and kind."""
    numbers = torch.tensor(counts)  # (B, K)
    valid = [torch.arange(size) < numbers[:, [kind]] for kind, size in enumerate(SIZES)]
    valid = torch.cat(valid, 1)
    return torch.randn(*valid.shape, 4).masked_fill(~valid.unsqueeze(-1), math.nan), valid


counts_of_events = st.lists(
    st.tuples(*(st.integers(0, size) for size in SIZES)), min_size=1, max_size=4
)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(counts_of_events)
def test_means_are_those_of_a_loop_over_the_real_objects(counts: list[tuple[int, ...]]) -> None:
    x, valid = draw(counts)
    of_events, of_kinds = masked_mean(x, valid), kind_means(x, valid, SIZES)
    for event, numbers in enumerate(counts):
        parts = [part[:n] for part, n in zip(x[event].split(SIZES), numbers, strict=True)]
        for kind, part in enumerate([torch.cat(parts), *parts]):
            found = of_events[event] if kind == 0 else of_kinds[event, kind - 1]
            assert_close(found, part.mean(0) if len(part) else torch.zeros(4))


class Attend(nn.Module):
    """A block that is nothing but attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(4, AttentionOptions(num_heads=2))

    def forward(self, x: Tensor, plan: Plan, context: Tensor) -> Tensor:
        return self.attention(x, plan, context=context)[0]


def test_seeds_ask_the_real_objects() -> None:
    pooling = SeedPooling(4, 3, Attend())
    peer = nn.MultiheadAttention(4, 2, batch_first=True)
    ours = pooling.block.attention
    state = {
        "in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
        "in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
        "out_proj.weight": ours.out.weight,
        "out_proj.bias": ours.out.bias,
    }
    peer.load_state_dict(state)
    valid = torch.arange(5) < torch.tensor([[5], [2]])
    x = torch.randn(2, 5, 4)
    seeds = pooling.seeds.expand(2, -1, -1)
    expected, _ = peer(seeds, x, x, key_padding_mask=~valid)
    assert_close(pooling(x, valid), expected)


def test_seeds_without_objects_have_finite_answers_and_gradients() -> None:
    pooling = SeedPooling(4, 2, Attend())
    out = pooling(torch.randn(2, 3, 4), torch.arange(3) < torch.tensor([[0], [1]]))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in pooling.parameters())


def test_there_is_at_least_one_seed() -> None:
    with pytest.raises(ValueError, match="num_seeds=0"):
        SeedPooling(4, 0, Attend())
