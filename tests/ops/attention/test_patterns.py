"""Patterns say what sees what, and plans check a batch once."""

import pytest
import torch

from hepattn.ops.attention import Full, Window, make_plan
from reference.attention import prefix_valid, visible


@pytest.mark.parametrize("size", [0, -2, 3])
def test_window_size_must_be_even_and_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size} must be even and positive"):
        Window(size)


def test_number_of_registers_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="num_registers=-1"):
        Window(4, num_registers=-1)


def test_window_wraps_at_each_events_own_length() -> None:
    plan = make_plan(Window(2, wrap=True), prefix_valid([6, 4], 6))
    seen = plan.visible()
    assert seen[0, 0, 0].nonzero().flatten().tolist() == [0, 1, 5]
    assert seen[1, 0, 0].nonzero().flatten().tolist() == [0, 1, 3]


def test_window_distances_do_not_count_registers() -> None:
    plan = make_plan(Window(2, wrap=True, num_registers=2), prefix_valid([8], 8))
    assert plan.visible()[0, 0, 2].nonzero().flatten().tolist() == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("num_registers", [0, 2])
def test_dense_mask_follows_the_rule_for_every_pair(wrap: bool, num_registers: int) -> None:
    pattern = Window(4, wrap, num_registers)
    lengths = [num_registers + n for n in (0, 1, 3, 5, 6, 11)]
    seen = make_plan(pattern, prefix_valid(lengths, 14)).visible()
    for b, length in enumerate(lengths):
        for i in range(14):
            for j in range(14):
                real = i < length and j < length
                assert seen[b, 0, i, j] == (real and visible(pattern, i, j, length))


@pytest.mark.parametrize("wrap", [False, True])
def test_window_covers_an_event_exactly_when_all_pairs_are_visible(wrap: bool) -> None:
    window = Window(6, wrap)
    for n in range(1, 12):
        everything = all(visible(window, i, j, n) for i in range(n) for j in range(n))
        assert window.covers(n) == everything


def test_full_attention_over_unpadded_events_needs_no_mask() -> None:
    assert make_plan(Full(), prefix_valid([5, 5], 5)).mask is None


def test_the_mask_is_made_once_for_all_layers() -> None:
    plan = make_plan(Window(2), prefix_valid([5, 3], 5))
    assert plan.mask is plan.mask


def test_events_of_one_length_share_one_mask() -> None:
    assert make_plan(Window(2), prefix_valid([5, 5, 5], 5)).mask.shape == (1, 1, 5, 5)


def test_a_batch_without_events_has_a_plan() -> None:
    assert make_plan(Window(2, num_registers=1), torch.ones(0, 4, dtype=torch.bool)).lengths == ()


def test_valid_must_be_boolean() -> None:
    with pytest.raises(TypeError, match=r"key_valid has dtype torch\.float32"):
        make_plan(Full(), torch.ones(2, 3))


def test_valid_must_be_two_dimensional() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        make_plan(Full(), torch.ones(3, dtype=torch.bool))


def test_real_tokens_must_come_first() -> None:
    valid = torch.tensor([[True, True, False], [True, False, True]])
    with pytest.raises(ValueError, match="event 1 has padding before a real token"):
        make_plan(Full(), valid)


def test_query_valid_must_hold_the_same_events() -> None:
    with pytest.raises(ValueError, match="3 events, key_valid 2"):
        make_plan(Full(), prefix_valid([1, 1], 1), prefix_valid([1, 1, 1], 1))


def test_events_must_hold_their_registers() -> None:
    with pytest.raises(ValueError, match="1 real tokens, fewer than num_registers=2"):
        make_plan(Window(2, num_registers=2), prefix_valid([4, 1], 4))


def test_windows_between_different_sets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"use Full\(\) for cross-attention"):
        make_plan(Window(2), prefix_valid([4], 4), prefix_valid([2], 2))


def test_unknown_patterns_are_refused() -> None:
    with pytest.raises(TypeError, match="pattern='full'"):
        make_plan("full", prefix_valid([4], 4))
