"""The piecewise linear encoding says how full each bin is."""

import math
from bisect import bisect_right
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.piecewise_linear import PiecewiseLinearEncoding, PiecewiseLinearOptions
from nn.column_cases import summarise

NUMBERS = st.floats(-100, 100, width=32)
COLUMNS = st.lists(NUMBERS, min_size=2, max_size=40)


def fit(x: Tensor, num_bins: int, bins: str = "quantile") -> PiecewiseLinearEncoding:
    encoding = PiecewiseLinearEncoding(x.shape[1], PiecewiseLinearOptions(num_bins, bins))
    encoding.fit(summarise(x).quantiles)
    return encoding


def edges_of(encoding: PiecewiseLinearEncoding, feature: int) -> list[float]:
    """The edges of the bins that a feature has."""
    start, inverse = encoding.start[feature].tolist(), encoding.inverse_width[feature].tolist()
    used = [(low, low + 1 / width) for low, width in zip(start, inverse, strict=True) if width]
    return [low for low, _ in used] + ([used[-1][1]] if used else [])


def encode_by_place(value: float, edges: list[float], num_bins: int) -> list[float]:
    """Find the value's own bin, fill those before it, and share it."""
    if len(edges) < 2:
        return [0.0] * num_bins
    own = min(max(bisect_right(edges, value) - 1, 0), len(edges) - 2)
    share = (value - edges[own]) / (edges[own + 1] - edges[own])
    full = [1.0] * own + [min(max(share, 0.0), 1.0)]
    return full + [0.0] * (num_bins - len(full))


@settings(max_examples=25, deadline=None)
@given(COLUMNS, st.lists(NUMBERS, min_size=1, max_size=8), st.integers(1, 6), st.booleans())
def test_a_number_fills_the_bins_below_it_and_shares_its_own(
    column: list[float], values: list[float], num_bins: int, uniform: bool
) -> None:
    encoding = fit(torch.tensor(column)[:, None], num_bins, "uniform" if uniform else "quantile")
    edges = edges_of(encoding, 0)
    x = torch.tensor(values)[:, None]
    if any(high - low < 1e-3 for low, high in pairwise(edges)):
        return  # 1 / (1 / width) has lost the edges
    expected = [encode_by_place(value, edges, num_bins) for value in values]
    assert_close(encoding(x)[:, 0], torch.tensor(expected), atol=2e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(COLUMNS, st.sampled_from(["quantile", "uniform", "learned"]), st.integers(1, 6))
def test_a_larger_number_fills_no_bin_less(column: list[float], bins: str, num_bins: int) -> None:
    encoding = fit(torch.tensor(column)[:, None], num_bins, bins)
    values = torch.linspace(-120, 120, 200)[:, None]
    codes = encoding(values)[:, 0]
    assert (codes.diff(dim=0) >= 0).all()
    assert ((codes >= 0) & (codes <= 1)).all()


def test_each_quantile_bin_has_as_many_values() -> None:
    x = torch.randn(4000, 1).exp()
    num_started = (fit(x, 8)(x) > 0).sum(0)[0]
    assert_close(num_started / 500, torch.arange(8.0, 0, -1), atol=0.02, rtol=0)


def test_the_filled_widths_add_up_to_the_distance_from_the_lowest_edge() -> None:
    x = torch.rand(100, 3) * torch.tensor([1.0, 10.0, 100.0])
    for bins in ("quantile", "uniform"):
        encoding = fit(x, 5, bins)
        distance = (encoding(x) / encoding.inverse_width).sum(-1)
        assert_close(distance, x - x.min(0).values, atol=1e-4, rtol=1e-4)


def test_uniform_bins_have_one_width_between_the_extremes() -> None:
    encoding = fit(torch.tensor([[2.0], [3.0], [10.0]]), 4, "uniform")
    assert_close(torch.tensor(edges_of(encoding, 0)), torch.tensor([2.0, 4.0, 6.0, 8.0, 10.0]))


def test_values_that_repeat_leave_no_empty_bins() -> None:
    x = torch.tensor([0.0] * 701 + [1.0] * 190 + [5.0] * 110)[:, None]
    encoding = fit(x, 16)
    assert edges_of(encoding, 0) == [0.0, 1.0, 5.0]
    assert_close(
        encoding(torch.tensor([[0.5], [3.0]]))[:, 0, :2], torch.tensor([[0.5, 0], [1, 0.5]])
    )


@pytest.mark.parametrize("bins", ["quantile", "uniform", "learned"])
def test_what_is_extreme_or_not_a_number(bins: str) -> None:
    x = torch.stack([torch.rand(50), torch.full((50,), 3.0)], 1)  # the second one is constant
    encoding = fit(x, 4, bins)
    nan, inf = encoding(torch.tensor([[math.nan, math.nan], [math.inf, -math.inf]]))
    assert nan.isnan().all()
    assert_close(inf[0], torch.ones(4))
    assert (inf[1] == 0).all()
    assert encoding(x).isfinite().all()


def test_learned_edges_start_near_the_quantiles_and_get_gradients() -> None:
    x = torch.randn(1001, 2)
    encoding = fit(x, 5, "learned")
    share = torch.linspace(0, 1, 6)
    quantiles = x.sort(0).values[::200]
    uniform = x.min(0).values + share[:, None] * (x.max(0).values - x.min(0).values)
    assert_close(encoding.edges.T, 0.9 * quantiles + 0.1 * uniform, atol=1e-4, rtol=0)
    encoding(x).square().sum().backward()
    assert (encoding.edges.grad != 0).all()


@pytest.mark.parametrize("unit", [1e-4, 1e4])
@pytest.mark.parametrize("num_bins", [5, 200])
def test_learned_bins_fill_whatever_the_range_of_a_column(unit: float, num_bins: int) -> None:
    x = torch.randn(1001, 1)
    expected, found = fit(x, num_bins, "learned")(x), fit(unit * x, num_bins, "learned")(unit * x)
    assert (found.amax(0) == 1).all()
    assert_close(found, expected, atol=1e-3, rtol=0)


def test_a_learned_bin_that_has_closed_is_a_step() -> None:
    encoding = fit(torch.rand(100, 1), 2, "learned")
    for edges in ([0.0, 0.5, 0.5], [0.5, 0.5, 0.5]):
        with torch.no_grad():
            encoding.edges.copy_(torch.tensor([edges]))
        out = encoding(torch.tensor([[0.4], [0.6]]))[:, 0, 1]
        assert_close(out, torch.tensor([0.0, 1.0]))


def test_learned_edges_that_have_crossed_are_put_in_order() -> None:
    x = torch.randn(100, 1)
    encoding = fit(x, 3, "learned")
    expected = encoding(x)
    with torch.no_grad():
        encoding.edges.copy_(encoding.edges[:, [2, 0, 3, 1]])
    assert_close(encoding(x), expected)


@pytest.mark.parametrize("bins", ["quantile", "uniform", "learned"])
def test_a_checkpoint_carries_the_bins(bins: str) -> None:
    x = torch.randn(100, 2)
    encoding = fit(x, 3, bins)
    loaded = PiecewiseLinearEncoding(2, PiecewiseLinearOptions(3, bins))
    blank = PiecewiseLinearEncoding(2, PiecewiseLinearOptions(3, bins))
    loaded.load_state_dict(blank.state_dict())
    with pytest.raises(RuntimeError, match=r"bins are those of the training split.*fit_inputs"):
        loaded(x)
    loaded.load_state_dict(encoding.state_dict())
    assert_close(loaded(x), encoding(x))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="num_bins=0"):
        PiecewiseLinearOptions(num_bins=0)
    with pytest.raises(ValueError, match="dropout=1"):
        PiecewiseLinearOptions(dropout=1.0)
