"""Patterns say what sees what, and plans check a batch once."""

import pytest
import torch

from hepattn.ops.attention import (
    Full,
    Registers,
    Window,
    make_packed_plan,
    make_plan,
    register_places,
)
from reference.attention import make_case, prefix_valid, token_places


@pytest.mark.parametrize("size", [0, -2, 3])
def test_window_size_must_be_even_and_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size} must be even and positive"):
        Window(size)


def test_number_of_registers_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="num_registers=-1"):
        Registers(-1)


def test_register_stride_must_be_positive() -> None:
    with pytest.raises(ValueError, match="register_stride=0"):
        Registers(2, stride=0)


def test_window_wraps_at_each_events_own_length() -> None:
    plan = make_plan(Window(2, wrap=True), prefix_valid([6, 4], 6))
    seen = plan.visible()
    assert seen[0, 0, 0].nonzero().flatten().tolist() == [0, 1, 5]
    assert seen[1, 0, 0].nonzero().flatten().tolist() == [0, 1, 3]


def test_window_distances_do_not_count_registers() -> None:
    plan = make_plan(Window(2, wrap=True), prefix_valid([8], 8), registers=Registers(2))
    assert plan.visible()[0, 0, 2].nonzero().flatten().tolist() == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("registers", [Registers(), Registers(2), Registers(3, stride=2)])
@pytest.mark.parametrize("query_lengths", [None, [2, 3, 0, 5, 9, 4]])
def test_dense_mask_follows_the_rule_for_every_pair(
    wrap: bool, registers: Registers, query_lengths: list[int] | None, packed: bool
) -> None:
    lengths = [registers.num + n for n in (0, 1, 3, 5, 6, 11)]
    case = make_case(
        Window(4, wrap),
        lengths,
        query_lengths=query_lengths,
        registers=registers,
        centres=query_lengths is not None,
        packed=packed,
        extra=2,
    )
    expected = torch.zeros(case.q.shape[0], case.q.shape[2], case.k.shape[2], dtype=torch.bool)
    for b, i, keys, _ in case.sights():
        expected[b, i, keys] = True
    seen = case.plan().visible()[:, 0] & case.query_valid[:, :, None]
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("registers", [Registers(3), Registers(3, 1), Registers(4, 2)])
@pytest.mark.parametrize("num_keys", [0, 1, 2, 4, 5, 20])
def test_registers_stand_where_their_stride_says(registers: Registers, num_keys: int) -> None:
    places = token_places(num_keys + registers.num, registers)
    expected = [index for index, place in enumerate(places) if place is None]
    assert register_places(torch.tensor([num_keys]), registers).tolist() == [expected]
    keys = make_plan(Full(), prefix_valid([len(places)], 30), registers=registers).keys
    assert keys.is_register[0].nonzero().flatten().tolist() == expected
    others = [place for place in places if place is not None]
    assert keys.place[0, : len(places)][~keys.is_register[0, : len(places)]].tolist() == others


def test_queries_stand_evenly_among_the_keys_of_their_event() -> None:
    plan = make_plan(Window(2), prefix_valid([10, 4], 10), prefix_valid([5, 3], 5))
    assert plan.queries.place[0].tolist() == [0, 2, 4, 6, 8]
    assert plan.queries.place[1, :3].tolist() == [0, 1, 2]


def test_a_restriction_hides_pairs_of_one_layer_only() -> None:
    plan = make_plan(Window(2), prefix_valid([5], 5))
    mask = torch.ones(1, 5, 5, dtype=torch.bool)
    mask[0, 1, 0] = False
    restricted = plan.restrict(mask)
    assert restricted.visible()[0, 0, 1].tolist() == [False, True, True, False, False]
    assert plan.visible()[0, 0, 1].tolist() == [True, True, True, False, False]


def test_restrictions_add_up() -> None:
    plan = make_plan(Full(), prefix_valid([2], 2))
    first, second = torch.eye(2).bool()[None], torch.ones(1, 2, 2).bool().tril()
    assert torch.equal(plan.restrict(first).restrict(second).visible()[:, 0], first & second)


def test_a_restriction_must_be_boolean_and_fit() -> None:
    plan = make_plan(Full(), prefix_valid([2], 2))
    with pytest.raises(TypeError, match=r"mask has dtype torch\.float32"):
        plan.restrict(torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 2\), the plan is for \(1, 2, 2\)"):
        plan.restrict(torch.ones(2, 2).bool())


@pytest.mark.parametrize("wrap", [False, True])
def test_window_covers_an_event_exactly_when_all_pairs_are_visible(wrap: bool) -> None:
    window = Window(6, wrap)
    for n in range(1, 12):
        sights = make_case(window, [n]).sights()
        assert window.covers(n) == all(len(keys) == n for _, _, keys, _ in sights)


def test_full_attention_over_unpadded_events_needs_no_mask() -> None:
    assert make_plan(Full(), prefix_valid([5, 5], 5)).mask is None


def test_the_mask_is_made_once_for_all_layers() -> None:
    plan = make_plan(Window(2), prefix_valid([5, 3], 5))
    assert plan.mask is plan.mask


def test_events_of_one_length_share_one_mask() -> None:
    assert make_plan(Window(2), prefix_valid([5, 5, 5], 5)).mask.shape == (1, 1, 5, 5)


def test_a_batch_without_events_has_a_plan() -> None:
    plan = make_plan(Window(2), torch.ones(0, 4, dtype=torch.bool), registers=Registers(1))
    assert plan.events.shape == (0, 5)


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
        make_plan(Window(2), prefix_valid([4, 1], 4), registers=Registers(2))


def test_centres_are_for_cross_attention() -> None:
    with pytest.raises(ValueError, match="centres are for cross-attention"):
        make_plan(Window(2), prefix_valid([4], 4), centres=torch.zeros(1, 4, dtype=torch.int64))


def test_centres_must_be_places_of_the_queries() -> None:
    valid = prefix_valid([4], 4), prefix_valid([2], 2)
    with pytest.raises(TypeError, match=r"centres have dtype torch\.float32"):
        make_plan(Window(2), *valid, centres=torch.zeros(1, 2))
    for shape in ((1, 3), (3, 2), (2,)):
        with pytest.raises(ValueError, match=r"centres have shape .*, must be \(1, 2\)"):
            make_plan(Window(2), *valid, centres=torch.zeros(shape, dtype=torch.int64))


def test_packed_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="4 tokens cannot hold lengths that add up to 5"):
        make_packed_plan(Full(), [2, 3], num_tokens=4)
    with pytest.raises(ValueError, match="query_lengths has 1 events, lengths 2"):
        make_packed_plan(Full(), [2, 3], [1])
    with pytest.raises(ValueError, match="must not be negative"):
        make_packed_plan(Full(), [2, -1])
    with pytest.raises(ValueError, match="1 real tokens, fewer than num_registers=2"):
        make_packed_plan(Full(), [2, 1], registers=Registers(2))


def test_unknown_patterns_are_refused() -> None:
    with pytest.raises(TypeError, match="pattern='full'"):
        make_plan("full", prefix_valid([4], 4))
