"""Sorting puts padding last and can be undone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hepattn.ops.sort import invert, sort_order, take


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(-3, 3), max_size=8), min_size=1, max_size=4))
def test_order_is_the_stable_order_of_the_real_tokens(events: list[list[int]]) -> None:
    width = max(len(event) for event in events)
    key = torch.full((len(events), width), -100.0)  # padding that would sort first
    for row, event in zip(key, events, strict=True):
        row[: len(event)] = torch.tensor(event, dtype=torch.float32)
    lengths = torch.tensor([len(event) for event in events])
    valid = torch.arange(width) < lengths.unsqueeze(1)
    order = sort_order(key, valid)
    for index, event in enumerate(events):
        expected = [i for _, i in sorted(zip(event, range(width), strict=False))]
        assert order[index, : len(event)].tolist() == expected
    tokens = torch.randn(*key.shape, 2)
    assert torch.equal(take(take(tokens, order), invert(order)), tokens)
